"""Who signs user certificates: a certificate authority's key in a file, or a signing service over HTTPS."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from typing import Protocol
from urllib.parse import urlsplit

import asyncssh
import httpx

from stagecoach.core.errors import PermissionRefused, StagecoachError, SystemUnavailable
from stagecoach.settings.credentials import CertificateAuthoritySettings

MAX_ANSWER_BYTES = 64 * 1024


class Signer(Protocol):
    """Signs one public key for one principal."""

    name: str
    """What it is called in messages; begins a sentence."""

    async def sign(self, key: asyncssh.SSHKey, principal: str, valid_after: int, valid_before: int) -> bytes:
        """An OpenSSH user certificate as a line of text, not yet looked at; times in seconds since 1970.

        Raises:
            PermissionRefused: it signs nothing for this principal. SystemUnavailable: it does not work.
        """


class KeyFileSigner:
    """The authority's key is read for each certificate, so that a new one counts at once, and kept nowhere."""

    def __init__(self, system_name: str, key_file: str, *, forwards: bool) -> None:
        self.name = f"The SSH certificate authority of {system_name}"
        self._key_file = key_file
        self._forwards = forwards

    async def sign(self, key: asyncssh.SSHKey, principal: str, valid_after: int, valid_before: int) -> bytes:
        return await asyncio.to_thread(self._sign, key, principal, valid_after, valid_before)

    def _sign(self, key: asyncssh.SSHKey, principal: str, valid_after: int, valid_before: int) -> bytes:
        try:
            authority = asyncssh.read_private_key(self._key_file)
            certificate = authority.generate_user_certificate(
                key,
                f"stagecoach {principal}",
                serial=secrets.randbits(63),
                # A list: in a string, a comma would make two principals of one.
                principals=[principal],
                valid_after=valid_after,
                valid_before=valid_before,
                # Commands and files are all that is needed.
                permit_x11_forwarding=False,
                permit_agent_forwarding=False,
                permit_pty=False,
                permit_user_rc=False,
                permit_port_forwarding=self._forwards,
            )
        except (OSError, ValueError) as error:
            raise SystemUnavailable(
                f"{self.name} cannot sign: the file in certificate_authority.key_file cannot be used"
                f" ({type(error).__name__}); tell the administrators."
            ) from error
        return certificate.export_certificate("openssh")


class ServiceSigner:
    """Asks ``POST {publicKey, principal, ttlSeconds}`` and takes ``{certificate}`` for an answer."""

    def __init__(self, system_name: str, settings: CertificateAuthoritySettings) -> None:
        url = settings.signing_service_url or ""
        # Its path may hold what is nobody's business.
        self.name = f"The SSH signing service of {system_name} at {urlsplit(url).netloc}"
        self._settings = settings
        self._url = url
        self._tls: ssl.SSLContext | None = None

    async def sign(self, key: asyncssh.SSHKey, principal: str, valid_after: int, valid_before: int) -> bytes:
        question = {
            "publicKey": key.export_public_key("openssh").decode().strip(),
            "principal": principal,
            "ttlSeconds": self._settings.ttl_seconds,
        }
        token = self._settings.signing_service_token
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token is not None else {}
        seconds = self._settings.signing_service_timeout_seconds
        try:
            if self._tls is None:
                self._tls = await asyncio.to_thread(self._load_tls)
            # httpx counts each read; a service that drips is bounded by the whole.
            async with asyncio.timeout(seconds):
                async with (
                    httpx.AsyncClient(verify=self._tls, timeout=seconds, trust_env=False) as client,
                    client.stream("POST", self._url, json=question, headers=headers) as answer,
                ):
                    if answer.status_code not in {200, 201}:
                        raise self._refused(answer.status_code, principal)
                    body = b""
                    async for piece in answer.aiter_bytes():
                        body += piece
                        if len(body) > MAX_ANSWER_BYTES:
                            raise SystemUnavailable(f"{self.name} answered with more than {MAX_ANSWER_BYTES} bytes.")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise SystemUnavailable(f"{self.name} did not answer within {seconds:g} s.") from error
        except (OSError, httpx.HTTPError) as error:
            raise SystemUnavailable(f"{self.name} cannot be reached ({type(error).__name__}).") from error
        return self._certificate(body)

    def _refused(self, status: int, principal: str) -> StagecoachError:
        # Its own words stay there: they may quote what we sent.
        if status in {403, 404, 422}:
            return PermissionRefused(f"{self.name} signs no certificate for {principal} (it answered {status}).")
        advice = " Look at certificate_authority.signing_service_token." if status == 401 else ""
        return SystemUnavailable(f"{self.name} answered {status}, so nobody can log in there just now.{advice}")

    def _certificate(self, body: bytes) -> bytes:
        try:
            document = json.loads(body)
            return str(document["certificate"]).encode("ascii")
        except (ValueError, KeyError, TypeError) as error:
            raise SystemUnavailable(f'{self.name} answered without {{"certificate": …}}.') from error

    def _load_tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._settings.signing_service_ca_file)
        except OSError as error:  # an SSLError is one
            raise SystemUnavailable(
                f"{self.name} cannot be asked: certificate_authority.signing_service_ca_file is no file of"
                " certificates; tell the administrators."
            ) from error
