"""What the browser keeps of who is signed in: one encrypted cookie, which any replica with the same key can read.

Nothing is kept on the server, so a restart signs nobody out. The cookie holds the credential that the API believes (the
secret of an account's session, or a provider's token); scripts cannot read it, and other sites cannot send it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from cryptography.fernet import Fernet, InvalidToken
from starlette.datastructures import Headers
from starlette.requests import cookie_parser

LIFE_SECONDS = 7 * 24 * 3600
# Browsers keep 4,096 bytes of a cookie, name and attributes included; a provider's tokens may need several.
CHUNK_CHARACTERS = 3500
MAX_CHUNKS = 6


@dataclass(frozen=True, slots=True)
class Session:
    """One browser's. Without ``credential`` nobody is signed in; ``csrf`` binds forms to it all the same."""

    csrf: str
    credential: str | None = None
    issuer: str | None = None
    """The provider that gave the credential; None: an account of the service, or the machine's user."""
    refresh_token: str | None = None
    believed_until: float | None = None
    """Epoch seconds; None: the API tells when it is over."""
    flash: tuple[str, str] | None = None
    """Kind (``good`` or ``bad``) and sentence for the next page."""

    def __repr__(self) -> str:
        return f"Session({'signed in' if self.credential else 'nobody'})"

    def signed_out(self) -> Session:
        """With the same forms' secret, and nobody's."""
        return Session(self.csrf)


def new_session() -> Session:
    """A stranger's."""
    return Session(secrets.token_urlsafe(24))


def signed_in(
    credential: str, *, issuer: str | None = None, refresh_token: str | None = None, believed_until: float | None = None
) -> Session:
    """Somebody's, with a secret for forms that was never shown to whoever was here before."""
    return replace(
        new_session(), credential=credential, issuer=issuer, refresh_token=refresh_token, believed_until=believed_until
    )


class Sealer:
    """Turns small documents into text that only who has the key can read or make."""

    def __init__(self, key: str) -> None:
        derived = hashlib.sha256(b"stagecoach portal cookies\0" + key.encode()).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def seal(self, document: Mapping[str, object]) -> str:
        """ASCII that a cookie can hold."""
        return self._fernet.encrypt(zlib.compress(json.dumps(document).encode())).decode()

    def open(self, text: str, life_seconds: int) -> dict[str, object] | None:
        """None for what is forged, too old, or sealed with another key."""
        try:
            document = json.loads(zlib.decompress(self._fernet.decrypt(text.encode(), ttl=life_seconds)))
        except (InvalidToken, ValueError, zlib.error):
            return None
        return document if isinstance(document, dict) else None


class Cookies:
    """Reads a request's session and writes the headers that change it."""

    def __init__(self, sealer: Sealer, port: int) -> None:
        self.sealer = sealer
        self._port = port

    def name(self, *, is_https: bool) -> str:
        """Cookies know no port: two services on one machine must not sign each other out."""
        return "__Host-stagecoach" if is_https else f"stagecoach-{self._port}"

    def read(self, headers: Headers, *, is_https: bool) -> Session | None:
        """None where there is none, or one that does not hold."""
        name, sent = self.name(is_https=is_https), cookies_of(headers)
        chunks = [sent[each] for each in _chunk_names(name) if each in sent]
        document = self.sealer.open("".join(chunks), LIFE_SECONDS) if chunks else None
        if document is None:
            return None
        try:
            flash = document.pop("flash", None)
            return Session(**document, flash=(str(flash[0]), str(flash[1])) if isinstance(flash, list) else None)  # type: ignore[arg-type]
        except TypeError:
            # Of another version of this service.
            return None

    def headers(self, session: Session | None, sent: Headers, *, is_https: bool) -> list[str]:
        """Values of Set-Cookie that make the browser keep this session, or forget the one it has."""
        name = self.name(is_https=is_https)
        kept = {key: value for key, value in asdict(session).items() if value is not None} if session else {}
        text = self.sealer.seal(kept) if session else ""
        chunks = [text[start : start + CHUNK_CHARACTERS] for start in range(0, len(text), CHUNK_CHARACTERS)]
        if len(chunks) > MAX_CHUNKS:
            raise ValueError("the credential is too long to be kept in cookies")
        lines = [
            cookie_line(each, chunk, LIFE_SECONDS, is_https=is_https)
            for each, chunk in zip(_chunk_names(name), chunks, strict=False)
        ]
        stale = set(_chunk_names(name)[len(chunks) :]) & set(cookies_of(sent))
        return lines + [cookie_line(each, "", 0, is_https=is_https) for each in sorted(stale)]


def cookie_line(name: str, value: str, life_seconds: int, *, is_https: bool, same_site: str = "Strict") -> str:
    """A Set-Cookie header; ``life_seconds`` 0 makes the browser forget it."""
    secure = "; Secure" if is_https else ""
    return f"{name}={value}; Path=/; Max-Age={life_seconds}; HttpOnly; SameSite={same_site}{secure}"


def cookies_of(headers: Headers) -> dict[str, str]:
    """All that the browser sent."""
    # The standard library stops at the first that is not as it should be; other programs of a machine set such ones.
    return cookie_parser(headers.get("cookie", ""))


def _chunk_names(name: str) -> list[str]:
    return [name, *(f"{name}-{number}" for number in range(1, MAX_CHUNKS))]
