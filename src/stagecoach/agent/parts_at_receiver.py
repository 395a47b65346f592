"""What of the parts has arrived, as the receiver answers: sizes, and digests that it makes of what is on its disk.

The list of the parts is stored here too: rclone's S3 backend carries files, and this is none. Blocking; to be used by one
thread each.
"""

from __future__ import annotations

import http.client
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Self

from stagecoach.agent.network_probes import Endpoint, ProbeFailed, connect, handshake, resolve
from stagecoach.agent.parts import FOLDER, LIST_NAME, MOST_LIST_BYTES, PartedFile, read_list
from stagecoach.agent.s3_request_signing import signed_headers
from stagecoach.mover.stagecoach_mover import Failed

log = logging.getLogger(__name__)

_CONNECT_SECONDS = 15.0
_LEAST_SECONDS = 60.0
# It reads the part for its digest before it answers; slower disks than this are not expected.
_SLOWEST_DIGEST_BYTES_PER_SECOND = 10e6


class ReceiverRefuses(Exception):
    """``code`` is as of a copy's trouble."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclass(frozen=True, slots=True)
class Arrived:
    """One part at the receiver."""

    size_bytes: int
    md5: str


class PartsAtReceiver:
    """One connection to ``folder`` of the receiver's bucket, opened when it is needed. All methods raise ReceiverRefuses."""

    def __init__(
        self, endpoint: Endpoint, folder: str, part_size_bytes: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._to = endpoint
        self._base = "/" + "/".join(filter(None, (endpoint.bucket, folder.strip("/"), FOLDER)))
        self._seconds = _LEAST_SECONDS + part_size_bytes / _SLOWEST_DIGEST_BYTES_PER_SECOND
        self._now = now
        self._client: http.client.HTTPConnection | None = None

    def arrived(self, path: str) -> Arrived | None:
        """One part, by its path below ``FOLDER``. None: it is not there."""
        status, headers, _ = self._ask("HEAD", path)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise _refusal(status)
        return Arrived(int(headers.get("Content-Length") or -1), (headers.get("ETag") or "").strip('"'))

    def stored_list(self) -> list[PartedFile] | None:
        """The last word of an earlier try, of no files where it cannot be read; None: there was no such try."""
        status, _, body = self._ask("GET", LIST_NAME)
        if status == HTTPStatus.NOT_FOUND:
            return None
        if status != HTTPStatus.OK:
            raise _refusal(status)
        try:
            return read_list(body)
        except Failed as failed:
            log.info("%s", failed.message)
            return []

    def store_list(self, written: bytes) -> None:
        """Of all files, and how far they were compared."""
        status, _, _ = self._ask("PUT", LIST_NAME, written)
        if status != HTTPStatus.OK:
            raise _refusal(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Once more on a new connection, where the old one may just have been closed."""
        was_open = self._client is not None
        try:
            return self._asked(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            self._close()
            if not was_open:
                raise ReceiverRefuses("receiver_interrupted", f"The receiver does not answer ({type(error).__name__}).") from None
        try:
            return self._asked(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            self._close()
            raise ReceiverRefuses("receiver_interrupted", f"The receiver does not answer ({type(error).__name__}).") from None

    def _asked(self, method: str, path: str, body: bytes | None) -> tuple[int, http.client.HTTPMessage, bytes]:
        if self._client is None:
            self._client = self._connected()
        whole = f"{self._base}/{path}"
        headers = signed_headers(
            method,
            self._to.host_header,
            whole,
            access_key_id=self._to.access_key_id or "",
            secret_access_key=self._to.secret_access_key or "",
            now=self._now(),
        )
        self._client.request(method, whole, body=body, headers=headers)
        answer = self._client.getresponse()
        said = answer.read(MOST_LIST_BYTES)
        if answer.will_close:
            self._close()
        return answer.status, answer.headers, said

    def _connected(self) -> http.client.HTTPConnection:
        try:
            family, address = resolve(self._to.host, self._to.port, _CONNECT_SECONDS)[0]
            secured: ssl.SSLSocket
            secured, _ = handshake(connect(family, address, _CONNECT_SECONDS), self._to)
        except ProbeFailed as failed:
            code = "certificate_wrong" if failed.failure.code == "wrong_certificate" else "receiver_silent"
            raise ReceiverRefuses(code, f"The receiver is not reached ({failed.failure.detail[:200]}).") from None
        secured.settimeout(self._seconds)
        client = http.client.HTTPConnection(self._to.host, self._to.port)
        client.sock = secured
        # It would open another one by itself, without TLS.
        client.auto_open = 0
        return client


def _refusal(status: int) -> ReceiverRefuses:
    if status in {HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED}:
        return ReceiverRefuses("key_refused", "The receiver does not accept the key of this transfer: it was closed.")
    return ReceiverRefuses("receiver_failed", f"The receiver cannot tell what has arrived or store it (HTTP {status}).")
