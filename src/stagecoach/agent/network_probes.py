"""The steps of a network check, each blocking and each bounded in time: name, connection, TLS, one request.

Each raises ProbeFailed with the cause by its stable code.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from stagecoach.agent.network_report import Failure

_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM}
# Of Linux' struct tcp_info: path MTU, all retransmitted segments, segments sent.
_TCP_INFO_BYTES = 160
_PATH_MTU, _TOTAL_RETRANSMITTED, _SEGMENTS_OUT = 60, 100, 136
_U32 = struct.Struct("=I")


class ProbeFailed(Exception):
    """``failure`` says at which step, and why."""

    def __init__(self, step: str, code: str, detail: str) -> None:
        super().__init__(detail)
        self.failure = Failure(step, code, detail)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is checked: an address, with TLS unless it is said otherwise; with ``certificate_sha256`` (64 hexadecimal digits)
    it must show that very certificate, without it one that the machine's authorities vouch for, or those of ``ca_pem``. With a
    key requests are signed, and speed is probed in ``bucket``."""

    host: str
    port: int
    certificate_sha256: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    bucket: str = "data"
    uses_tls: bool = True
    ca_pem: str | None = None

    @property
    def host_header(self) -> str:
        """As in a request."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.uses_tls else 80) else f"{name}:{self.port}"


@dataclass(frozen=True, slots=True)
class TcpFacts:
    """What the kernel counted on one connection."""

    path_mtu_bytes: int
    retransmitted_segments: int
    sent_segments: int


def resolve(host: str, port: int, timeout_seconds: float) -> list[tuple[int, tuple[str | int, ...]]]:
    """Address families and addresses, as the machine prefers them. The system's resolver cannot be interrupted, so a slow
    one is left behind in a thread of its own."""
    answers: SimpleQueue[list[tuple[int, tuple[str | int, ...]]] | OSError | UnicodeError] = SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put(
                [
                    (int(family), tuple(str(part) if isinstance(part, bytes) else part for part in address))
                    for family, _, _, _, address in found
                ]
            )
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=ask, name="name of a host", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_seconds)
    except Empty:
        raise ProbeFailed("dns", "dns_failed", f"no answer within {timeout_seconds:g} s") from None
    if isinstance(answer, list):
        return answer
    detail = (answer.strerror if isinstance(answer, OSError) else None) or str(answer)
    raise ProbeFailed("dns", "dns_failed", detail) from answer


def connect(family: int, address: tuple[str | int, ...], timeout_seconds: float) -> socket.socket:
    """A connection; every later wait on it has the same bound."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(timeout_seconds)
    try:
        connection.connect(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError:
        connection.close()
        raise ProbeFailed("tcp", "no_answer", f"no answer within {timeout_seconds:g} s") from None
    except OSError as error:
        connection.close()
        code = "port_closed" if isinstance(error, ConnectionRefusedError) else "no_answer"
        raise ProbeFailed("tcp", "unreachable" if error.errno in _UNREACHABLE else code, error.strerror or str(error)) from error
    return connection


def handshake(connection: socket.socket, endpoint: Endpoint) -> tuple[ssl.SSLSocket, bytes]:
    """TLS, and the certificate (DER) that was shown; nothing was sent yet to whoever showed another. Closes on failure."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if endpoint.certificate_sha256 is None and endpoint.ca_pem is not None:
        try:
            context.load_verify_locations(cadata=endpoint.ca_pem)
        except (ssl.SSLError, ValueError) as error:
            connection.close()
            raise ProbeFailed("tls", "wrong_certificate", "the authority that was given is no certificate in PEM") from error
    elif endpoint.certificate_sha256 is None:
        context.load_default_certs()
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # the fingerprint is looked at below
    try:
        secured = context.wrap_socket(connection, server_hostname=endpoint.host)
    except ssl.SSLCertVerificationError as error:
        connection.close()
        raise ProbeFailed("tls", "wrong_certificate", error.verify_message) from error
    except TimeoutError:
        connection.close()
        raise ProbeFailed("tls", "tls_failed", "no answer to the greeting") from None
    except OSError as error:
        connection.close()
        raise ProbeFailed("tls", "tls_failed", error.strerror or type(error).__name__) from error
    shown = secured.getpeercert(binary_form=True) or b""
    if endpoint.certificate_sha256 is not None:
        wanted, found = endpoint.certificate_sha256.lower().replace(":", ""), hashlib.sha256(shown).hexdigest()
        if found != wanted:
            secured.close()
            raise ProbeFailed("tls", "wrong_certificate", f"SHA-256 {found[:16]}… instead of {wanted[:16]}…")
    return secured, shown


def require_name(connection: socket.socket, endpoint: Endpoint, shown: bytes) -> None:
    """rclone looks at the name and the dates in the certificate too; closes the connection, a new one. For a certificate
    known by its fingerprint: any other has passed this already."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(shown))
    try:
        context.wrap_socket(connection, server_hostname=endpoint.host).close()
    except ssl.SSLCertVerificationError as error:
        raise ProbeFailed("tls", "wrong_certificate", f"it is the right one, but {error.verify_message}") from error
    except OSError as error:
        raise ProbeFailed("tls", "tls_failed", error.strerror or type(error).__name__) from error
    finally:
        connection.close()


def pinned_certificate(endpoint: Endpoint, timeout_seconds: float) -> str:
    """The PEM of the certificate with the endpoint's fingerprint, to be trusted by rclone. Raises ProbeFailed."""
    family, address = resolve(endpoint.host, endpoint.port, timeout_seconds)[0]
    secured, shown = handshake(connect(family, address, timeout_seconds), endpoint)
    secured.close()
    return ssl.DER_cert_to_PEM_cert(shown)


def tcp_facts(connection: socket.socket) -> TcpFacts | None:
    """None where the kernel does not tell."""
    if sys.platform != "linux":
        return None
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(told) < _SEGMENTS_OUT + _U32.size:
        return None
    numbers = [int(_U32.unpack_from(told, place)[0]) for place in (_PATH_MTU, _TOTAL_RETRANSMITTED, _SEGMENTS_OUT)]
    return TcpFacts(*numbers)


@contextlib.contextmanager
def talking(connection: socket.socket, endpoint: Endpoint) -> Iterator[http.client.HTTPConnection]:
    """HTTP on a connection that is there already."""
    client = http.client.HTTPConnection(endpoint.host, endpoint.port)
    client.sock = connection
    # It would open another one by itself, without TLS.
    client.auto_open = 0
    try:
        yield client
    finally:
        client.close()
