#!/usr/bin/env python3
"""Moves one large file between a disk and an S3 object, through presigned URLs alone.

The mover is given a ticket and leaves a receipt (docs/ticket.md). It runs as an ordinary user inside a Slurm
job, on a transfer node and inside the client library, so it is one file that needs nothing but Python 3.6: no
pip, no S3 library, no keys. It knows no bucket, database or scheduler. Nothing that comes from outside is
trusted: not the ticket, not a status code without its body and length, not the disk after a crash.

    stagecoach_mover.py fetch|put (--ticket FILE | --ticket-url-file FILE) [--state-directory DIR] [...]

What can go wrong is one of these:

    Failed         final for this run, with the stable code that the receipt carries
    Trouble        may pass: asked again with growing pauses, a bounded number of times
    Expired        a presigned URL was refused: the ticket is read again
    ObjectDiffers  what was fetched is not the object: everything is fetched once more
    Halted         somebody else asked this thread to stop
"""
# Python 3.6 is still the system Python of many clusters: spellings that are newer are out of reach here.

import argparse
import base64
import binascii
import calendar
import collections
import contextlib
import errno
import fcntl
import hashlib
import html
import http.client
import json
import os
import random
import re
import signal
import socket
import ssl
import stat
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, TypeVar

MOVER_VERSION = "1"
BUFFER_BYTES = 1024 * 1024
SEND_BYTES = 128 * 1024  # sendall's timeout covers one call, so a slow line must manage this much within it
ATTEMPTS_PER_REQUEST = 8
LONGEST_PAUSE_SECONDS = 30.0
MOST_RENEWALS = 100
JOURNAL_SECONDS = 2.0
PROGRESS_SECONDS = 2.0
LISTENER_SECONDS = 0.2
POLL_SECONDS = 0.1
PATIENCE_WITH_HALTED_THREADS_SECONDS = 10.0
MOST_PARTS = 1000000
MOST_CONNECTIONS = 64
LARGEST_TICKET_BYTES = 256 * 1024 * 1024
SMALL_BODY_BYTES = 64 * 1024

MAY_RUN_AGAIN = ("interrupted", "store_unreachable")
SUCCESS_PHRASES = {
    "fetch": "File was successfully moved",
    "put": "File was successfully moved: multipart file upload successfully completed",
}
PASSING_STORE_CODES = frozenset(
    (
        "InternalError",
        "SlowDown",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "RequestTimeout",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "IncompleteBody",
        "BadDigest",
        "OperationAborted",
    )
)

Document = Dict[str, Any]
T = TypeVar("T")


class Failed(Exception):
    """This run is over; the code is one of docs/ticket.md, the message is fit for a scientist."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Trouble(Exception):
    """May pass when asked again; the code is what it becomes if it never does."""

    def __init__(self, message: str, code: str = "store_unreachable", at_once: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.at_once = at_once


class Expired(Exception):
    """A presigned URL was refused; `by_time` when its time is known to be over."""

    def __init__(self, by_time: bool, said: str) -> None:
        super().__init__(said)
        self.by_time = by_time
        self.said = said

    def as_failure(self) -> Failed:
        if self.by_time:
            return Failed("ticket_expired", "The presigned address expired before the transfer was complete.")
        return Failed("store_refused", "The store refused access ({}).".format(self.said))


class ObjectDiffers(Exception):
    """The bytes on the disk are not those of the object."""


class Halted(Exception):
    """This thread was asked to stop."""


def redact(text: str) -> str:
    """Leaves out whatever may be an address, a signature or a phrase that only a success may print."""
    text = re.sub(r"(?i)\b[a-z][a-z0-9+.\-]*://\S*", "<address>", text)
    text = re.sub(
        r"(?i)[\w\-]*(amz|sign|secret|token|credential|key|authorization|password)[\w\-]*\s*[=:]\s*\S+",
        "<secret>",
        text,
    )
    text = re.sub(r"\S*[?&]\S*=\S*", "<address>", text)
    text = re.sub(r"[A-Za-z0-9+/=_%\-]{32,}", "<secret>", text)
    text = re.sub(r"(?i)successful", "<...>", text)
    return " ".join(text.split())[:300]


class Clock:
    """Time and chance; tests hand in their own."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float, halt: threading.Event) -> None:
        halt.wait(seconds)

    def jitter(self, ceiling: float) -> float:
        return random.uniform(0, ceiling)  # nothing secret hangs on it


def new_digest(name: str) -> Any:
    try:
        return hashlib.new(name, usedforsecurity=False)  # novm: hosts under FIPS refuse MD5 without it
    except TypeError:  # before Python 3.9
        return hashlib.new(name)


# --- the ticket -----------------------------------------------------------------------------------


class Part(NamedTuple):
    number: int
    offset: int
    size: int


class Ticket:
    """The ticket, checked: whatever the mover does not expect in it is `ticket_unreadable`."""

    def __init__(self, document: Any, kind: str) -> None:
        self._document = document if isinstance(document, dict) else {}
        if self._document.get("version") != 1:
            raise self._unreadable("version")
        self.kind = kind
        self.transfer_id = self._text("transfer_id")
        if not re.match(r"[a-z0-9]{1,64}\Z", self.transfer_id):
            raise self._unreadable("transfer_id")
        if self._document.get("kind") != kind:
            raise self._unreadable("kind")
        self.path = self._path("path_base64")
        self.root = self._path("root_base64") if self._document.get("root_base64") is not None else None
        self.size_bytes = self._number("size_bytes", 0)
        self.part_size_bytes = self._number("part_size_bytes", 1)
        self.part_count = max(1, -(-self.size_bytes // self.part_size_bytes))
        if self.part_count > MOST_PARTS:
            raise self._unreadable("part_size_bytes")
        self.get_url = self.complete_url = self.head_url = ""
        self.part_urls = []  # type: List[str]
        self.expected_etag = None  # type: Optional[str]
        if kind == "fetch":
            there = self._section("object")
            self.get_url = self._url(there.get("get_url"), "object.get_url")
            self.head_url = self._url(there.get("head_url"), "object.head_url")
            self.expected_etag = bare_etag(there["etag"]) if isinstance(there.get("etag"), str) else None
        else:
            there = self._section("upload")
            urls = there.get("part_urls")
            if not isinstance(urls, list) or len(urls) != self.part_count:
                raise self._unreadable("upload.part_urls")
            self.part_urls = [self._url(url, "upload.part_urls") for url in urls]
            self.complete_url = self._url(there.get("complete_url"), "upload.complete_url")
            self.head_url = self._url(there.get("head_url"), "upload.head_url", optional=True)
        self.digests = self._digests()
        self.wait_until = self._wait()
        self.progress_url = self._url(self._document.get("progress_url"), "progress_url", optional=True)
        self.receipt_url = self._url(self._document.get("receipt_url"), "receipt_url", optional=True)
        self.concurrency = None  # type: Optional[int]
        if self._document.get("concurrency") is not None:
            self.concurrency = self._number("concurrency", 1)
        self.verify = self._document.get("verify", True) is not False

    def parts(self) -> Iterator[Part]:
        for index in range(self.part_count):
            offset = index * self.part_size_bytes
            yield Part(index + 1, offset, min(self.part_size_bytes, self.size_bytes - offset))

    def identity(self) -> Tuple[Any, ...]:
        """What a renewed ticket must not change."""
        return (self.transfer_id, self.kind, self.path, self.size_bytes, self.part_size_bytes, self.digests)

    def urls(self) -> Tuple[str, ...]:
        return (self.get_url, self.head_url, self.complete_url, *self.part_urls)

    @staticmethod
    def _unreadable(key: str) -> Failed:
        return Failed("ticket_unreadable", "The ticket's '{}' is not what this mover understands.".format(key))

    def _text(self, key: str) -> str:
        value = self._document.get(key)
        if not isinstance(value, str):
            raise self._unreadable(key)
        return value

    def _number(self, key: str, least: int) -> int:
        value = self._document.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
            raise self._unreadable(key)
        return value

    def _section(self, key: str) -> Document:
        value = self._document.get(key)
        if not isinstance(value, dict):
            raise self._unreadable(key)
        return value

    def _path(self, key: str) -> bytes:
        try:
            path = base64.b64decode(self._text(key), validate=True)
        except (ValueError, binascii.Error):
            raise self._unreadable(key) from None
        if not path.startswith(b"/") or b"\0" in path:
            raise self._unreadable(key)
        return path

    def _url(self, value: Any, key: str, optional: bool = False) -> str:
        if optional and value is None:
            return ""
        # Printable ASCII only: no character of an address may break out of its line of the request.
        if not isinstance(value, str) or not re.match(r"https?://[!-~]+\Z", value):
            raise self._unreadable(key)
        return value

    def _digests(self) -> Dict[str, str]:
        said = self._document.get("digests") or {}
        if not isinstance(said, dict):
            raise self._unreadable("digests")
        digests = {}
        for name, pattern in (("sha256", r"[0-9a-fA-F]{64}\Z"), ("md5", r"[0-9a-fA-F]{32}\Z")):
            value = said.get(name)
            if value is None:
                continue
            if not isinstance(value, str) or not re.match(pattern, value):
                raise self._unreadable("digests")
            digests[name] = value.lower()
        return digests

    def _wait(self) -> Optional[float]:
        wait = self._document.get("wait")
        if wait is None:
            return None
        until = wait.get("until_epoch_seconds") if isinstance(wait, dict) else None
        if not isinstance(until, (int, float)) or isinstance(until, bool):
            raise self._unreadable("wait")
        return float(until)


class TicketInFile:
    """A ticket in a local file; its owner may replace it when the URLs have expired."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, line: "Line") -> Any:
        try:
            with open(self._path, "rb") as file:
                return parse_ticket(file.read(LARGEST_TICKET_BYTES))
        except OSError as error:
            raise Failed("ticket_unreadable", "The ticket could not be read ({}).".format(plain(error))) from None


class TicketAtUrl:
    """A ticket in the store; its presigned URL stands in a file that the service may replace at any time."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self, line: "Line") -> Any:
        url = self._url()
        try:
            response = line.ask("GET", url)
            body = line.read_all(response, LARGEST_TICKET_BYTES)
            if response.status != 200:
                raise refusal(response.status, body, url, line.clock.wall(), "ticket_expired")
        except Expired as expired:
            if self._url() == url:
                message = "The ticket's own address was refused ({}).".format(expired.said)
                raise Failed("ticket_expired", message) from None
            raise Trouble("The ticket's address was replaced meanwhile.", at_once=True) from None
        return parse_ticket(body)

    def _url(self) -> str:
        try:
            with open(self._path, "rb") as file:
                text = file.read(SMALL_BODY_BYTES).decode("ascii", "replace").strip()
        except OSError as error:
            message = "The ticket's address could not be read ({}).".format(plain(error))
            raise Failed("ticket_unreadable", message) from None
        if not re.match(r"https?://[!-~]+\Z", text):
            raise Failed("ticket_unreadable", "The file of the ticket's address does not hold one.")
        return text


def parse_ticket(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"))
    except ValueError:
        raise Failed("ticket_unreadable", "The ticket is not a JSON document.") from None


# --- the line to the store ------------------------------------------------------------------------


class Road:
    """How stores are reached from this host: proxies, trust and patience, as the environment says."""

    def __init__(self) -> None:
        self.stall_seconds = 60.0
        with contextlib.suppress(ValueError):
            self.stall_seconds = max(0.1, float(os.environ.get("STAGECOACH_STALL_SECONDS", "60")))
        self._proxies = urllib.request.getproxies()
        self._trust = None  # type: Optional[ssl.SSLContext]
        self._lock = threading.Lock()

    def open(self, scheme: str, host: str, port: int) -> Tuple[http.client.HTTPConnection, bool, Dict[str, str]]:
        """A connection not yet made, whether it wants whole URLs, and headers for every request."""
        connecting_seconds = min(self.stall_seconds, 20.0)
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        if proxy and urllib.request.proxy_bypass("{}:{}".format(host, port)):
            proxy = None
        to_host, to_port = host, port
        headers = {}  # type: Dict[str, str]
        if proxy:
            way = urllib.parse.urlsplit(proxy if "://" in proxy else "http://" + proxy)
            to_host, to_port = way.hostname or "", way.port or 80
            if way.username:
                pair = urllib.parse.unquote(way.username) + ":" + urllib.parse.unquote(way.password or "")
                headers["Proxy-Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if scheme == "http":
            return (
                http.client.HTTPConnection(to_host, to_port, timeout=connecting_seconds),
                bool(proxy),
                headers,
            )
        connection = http.client.HTTPSConnection(to_host, to_port, timeout=connecting_seconds, context=self._tls())
        if proxy:
            connection.set_tunnel(host, port, headers)
        return connection, False, {}

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._trust is None:
                self._trust = ssl.create_default_context()  # honours SSL_CERT_FILE and SSL_CERT_DIR
            return self._trust


class Line:
    """One thread's kept-alive connection to a store. What goes wrong on it becomes Trouble in plain words."""

    def __init__(self, road: Road, clock: Clock, halt: threading.Event) -> None:
        self.clock = clock
        self.halt = halt
        self._road = road
        self._origin = None  # type: Optional[Tuple[str, str, int]]
        self._connection = None  # type: Optional[http.client.HTTPConnection]
        self._socket = None  # type: Optional[socket.socket]
        self._response = None  # type: Optional[http.client.HTTPResponse]
        self._whole_urls = False
        self._headers = {}  # type: Dict[str, str]

    def ask(
        self,
        method: str,
        url: str,
        headers: Optional[Dict[str, str]] = None,
        length: Optional[int] = None,
        feed: Optional[Callable[[Callable[[Any], Any]], None]] = None,
        stall_seconds: Optional[float] = None,
    ) -> http.client.HTTPResponse:
        """Sends one request, gives its answer with the body unread. `feed` is given a way to send."""
        where = urllib.parse.urlsplit(url)
        reused = self._connect(where)
        connection = self._connection
        if connection is None or self._socket is None:
            raise Trouble("The connection to the store broke.")
        self._response = None
        try:
            self._socket.settimeout(stall_seconds or self._road.stall_seconds)
            target = url if self._whole_urls else urllib.parse.urlunsplit(("", "", where.path or "/", where.query, ""))
            connection.putrequest(method, target)
            for name, value in list(self._headers.items()) + list((headers or {}).items()):
                connection.putheader(name, value)
            if length is not None:
                connection.putheader("Content-Length", str(length))
            connection.endheaders()
            if feed is not None:
                try:
                    feed(connection.send)
                except ConnectionError:
                    # A store that refuses in the middle of a body answers and hangs up; the answer says why.
                    self._socket.settimeout(2.0)
                    response = connection.getresponse()
                    response.will_close = True
                    self._response = response
                    if response.status < 400:
                        raise
                    return response
            self._response = connection.getresponse()
            return self._response
        except (OSError, http.client.HTTPException, ssl.CertificateError) as error:
            self.drop()
            self.check()
            if url_is_past(url, self.clock.wall()) and feed is not None:
                raise Expired(True, "the connection was closed") from None
            # A kept-alive connection may have been closed while it was idle; that is nobody's fault.
            raise self._trouble(error, at_once=reused and isinstance(error, ConnectionError)) from None
        except BaseException:
            self.drop()
            raise

    def read_into(self, response: http.client.HTTPResponse, view: memoryview) -> int:
        """Fills some of the view with the body; never 0."""
        self.check()
        try:
            count = response.readinto(view)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.drop()
            self.check()
            raise self._trouble(error) from None
        if not count:
            self.drop()
            self.check()
            raise Trouble("The store ended its answer too early.")
        return count

    def read_all(self, response: http.client.HTTPResponse, limit: int = SMALL_BODY_BYTES) -> bytes:
        try:
            body = response.read(limit)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.drop()
            self.check()
            if response.status >= 400:
                return b""
            raise self._trouble(error) from None
        return body

    def check(self) -> None:
        if self.halt.is_set():
            raise Halted()

    def drop(self) -> None:
        connection, self._connection, self._socket = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()
        if self._response is not None:
            with contextlib.suppress(Exception):
                self._response.close()

    def cut(self) -> None:
        """From another thread: wakes the one that waits on this line."""
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(Exception):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's: it would pull the rug

    def _connect(self, where: urllib.parse.SplitResult) -> bool:
        """True when the connection was already open."""
        self.check()
        try:
            port = where.port or (443 if where.scheme == "https" else 80)
        except ValueError:
            raise Failed("ticket_unreadable", "An address in the ticket has an impossible port.") from None
        origin = (where.scheme, where.hostname or "", port)
        response = self._response
        if response is not None and (response.will_close or not response.isclosed()):
            self.drop()
        if self._connection is not None and self._connection.sock is not None and origin == self._origin:
            return True
        self.drop()
        self._origin = origin
        connection, self._whole_urls, self._headers = self._road.open(*origin)
        try:
            connection.connect()
        except (OSError, http.client.HTTPException, ssl.CertificateError) as error:
            connection.close()
            self.check()
            raise self._trouble(error) from None
        self._connection = connection
        self._socket = connection.sock
        return False

    def _trouble(self, error: Exception, at_once: bool = False) -> Exception:
        if isinstance(error, ssl.CertificateError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Failed("store_refused", "The store's certificate is not trusted here (see SSL_CERT_FILE).")
        if isinstance(error, socket.timeout):
            words = "The store was silent for {:g} seconds.".format(self._road.stall_seconds)
        elif isinstance(error, socket.gaierror):
            words = "The store's host name could not be resolved."
        elif isinstance(error, ConnectionRefusedError):
            words = "The store refuses connections."
        elif str(error).startswith("Tunnel connection failed"):
            words = "The proxy did not open a way to the store."
        elif isinstance(error, (ConnectionError, http.client.HTTPException, ssl.SSLError, ValueError)):
            words = "The connection to the store broke."
        else:
            words = "The store could not be reached ({}).".format(plain(error))
        return Trouble(words, at_once=at_once)


def plain(error: Exception) -> str:
    """An error without the path or address that its text may carry."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if isinstance(number, int) and number > 0 else type(error).__name__


def refusal(status: int, body: bytes, url: str, now: float, missing: str) -> Exception:
    """What an answer that is no success means; `missing` is the code for a 404."""
    found = re.search(rb"<Code>\s*([A-Za-z0-9.]{1,64})\s*</Code>", body)
    code = found.group(1).decode("ascii") if found else ""
    said = "HTTP {} {}".format(status, code).strip()
    if code in PASSING_STORE_CODES or status in (408, 425, 429) or (status >= 500 and status != 501):
        return Trouble("The store is overloaded or failing ({}).".format(said))
    if status == 404:
        what = {
            "object_missing": "The object is not in the store",
            "ticket_expired": "The ticket is not in the store any more",
        }
        return Failed(missing, "{} ({}).".format(what.get(missing, "The store does not know this upload"), said))
    # The words differ from store to store, and an answer to HEAD has none: the URL's own dates tell more.
    by_time = b"expired" in body.lower() or code == "ExpiredToken" or url_is_past(url, now)
    if by_time or status in (401, 403) or (status == 400 and (not body or code == "AccessDenied")):
        return Expired(by_time, said)
    return Failed("store_refused", "The store refused a request ({}).".format(said))


def url_is_past(url: str, now: float) -> bool:
    query = {key.lower(): value for key, value in urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)}
    try:
        if "x-amz-date" in query:
            signed = calendar.timegm(time.strptime(query["x-amz-date"], "%Y%m%dT%H%M%SZ"))
            return now > signed + int(query["x-amz-expires"])
        return now > int(query["expires"])
    except (KeyError, ValueError):
        return False


class ObjectSeen(NamedTuple):
    """What the store says of the object. `sealed`: encrypted with a key whose ETags are not MD5."""

    size_bytes: int
    etag: Optional[str]
    sealed: bool
    modified: Optional[str]

    def state(self) -> Optional[str]:
        """Whatever changes when the object does."""
        return self.etag or self.modified


def bare_etag(value: str) -> str:
    value = value.strip()
    return (value[2:] if value.startswith("W/") else value).strip('"')


def etag_of(response: http.client.HTTPResponse) -> Optional[str]:
    value = response.getheader("ETag")
    return (bare_etag(value) or None) if value else None  # one store says "" when told not to make digests


def is_sealed(response: http.client.HTTPResponse) -> bool:
    # AES256 (SSE-S3) keeps the MD5; keys of a key service or of the customer do not.
    return (response.getheader("x-amz-server-side-encryption") or "").startswith("aws:") or response.getheader(
        "x-amz-server-side-encryption-customer-algorithm"
    ) is not None


def is_md5(etag: Optional[str]) -> bool:
    return etag is not None and re.match(r"[0-9a-f]{32}\Z", etag) is not None


def multipart_etag(part_md5s: Iterable[str]) -> str:
    digests = [binascii.unhexlify(part_md5) for part_md5 in part_md5s]
    whole = new_digest("md5")
    whole.update(b"".join(digests))
    return "{}-{}".format(whole.hexdigest(), len(digests))


def has_parts(etag: str, count: int) -> bool:
    """Whether it is the ETag of an object that was put in just so many parts."""
    digest, _, number = etag.partition("-")
    return is_md5(digest) and number == str(count)


# --- the disk -------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(missing: str) -> Iterator[None]:
    """Turns an error of the file system into a failure; `missing` is the code for a name not there."""
    try:
        yield
    except OSError as error:
        what = plain(error)
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            words = "The file does not exist." if missing == "source_missing" else "The directory does not exist."
            raise Failed(missing, words) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP):
            raise Failed("permission_denied", "The file system does not permit it ({}).".format(what)) from None
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise Failed("no_space", "There is no room for the file ({}).".format(what)) from None
        raise Failed("mover_error", "The file system failed ({}).".format(what)) from None


def reserve(descriptor: int, size_bytes: int) -> None:
    """Takes the room for the whole file before its first byte, or raises OSError.

    Not os.posix_fallocate: where the file system cannot do it the C library would write to every block
    instead, which takes hours over NFS. fallocate(2) says so honestly; the free space is asked for then.
    """
    if not size_bytes:
        return
    number = errno.EOPNOTSUPP
    try:
        import ctypes

        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
        number = 0
        while fallocate(descriptor, 0, 0, size_bytes) != 0:
            number = ctypes.get_errno()
            if number != errno.EINTR:
                break
            number = 0
    except (ImportError, OSError, AttributeError):
        pass
    if number in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
        room = os.fstatvfs(descriptor)
        if room.f_bavail * room.f_frsize + os.fstat(descriptor).st_blocks * 512 < size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        number = 0
    if number:
        raise OSError(number, os.strerror(number))
    os.ftruncate(descriptor, size_bytes)


def default_mode() -> int:
    umask = None
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as status:
        for row in status:
            if row.startswith("Umask:"):
                umask = int(row.split()[1], 8)
    if umask is None:  # asking the kernel means setting it; other threads shall err on the closed side meanwhile
        umask = os.umask(0o077)
        os.umask(umask)
    return 0o666 & ~umask


class TargetFile:
    """The file being fetched, hidden beside its target until whole: the old target outlives any failure."""

    def __init__(self, path: bytes, transfer_id: str, root: Optional[bytes] = None) -> None:
        parent, self._name = os.path.split(path)
        if self._name in (b"", b".", b".."):
            raise Failed("target_is_directory", "The path names a directory, not a file.")
        self._hidden = ".stagecoach-{}.part".format(transfer_id).encode("ascii")
        self._descriptor = -1
        with disk_errors("target_missing_directory"):
            self._directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if root is not None:
                self._require_no_detour(parent, root)
            self.old_mode()
        except BaseException:
            self.close()
            raise

    def _require_no_detour(self, parent: bytes, root: bytes) -> None:
        """Below the root no directory may have become a symbolic link since the path was resolved.

        The root itself may be one: nodes mount file systems where they like.
        """
        below = os.path.relpath(parent, root)
        real_root = os.path.realpath(root)
        expected = real_root if below == b"." else os.path.join(real_root, below)
        if os.path.realpath(parent) != expected or not os.path.samestat(os.fstat(self._directory), os.stat(expected)):
            raise Failed("target_missing_directory", "The target's directory was replaced after the transfer began.")

    def old_mode(self) -> Optional[int]:
        with disk_errors("target_missing_directory"):
            try:
                found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                return None
        if stat.S_ISLNK(found.st_mode):
            # The link is replaced, not followed; but who has a link to a directory there wants no file in its stead.
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.stat(self._name, dir_fd=self._directory).st_mode):
                    raise Failed("target_is_directory", "The path names a directory, not a file.")
            return None
        if stat.S_ISDIR(found.st_mode):
            raise Failed("target_is_directory", "The path names a directory, not a file.")
        if not stat.S_ISREG(found.st_mode):
            raise Failed("permission_denied", "Something that is not a regular file stands at the path.")
        return stat.S_IMODE(found.st_mode) & 0o777

    def has_size(self, size_bytes: int) -> bool:
        with contextlib.suppress(OSError):
            found = os.stat(self._name, dir_fd=self._directory)
            return stat.S_ISREG(found.st_mode) and found.st_size == size_bytes
        return False

    def reopen(self, inode: Any, size_bytes: int) -> bool:
        """True when the hidden file of an earlier run is still there, and is ours."""
        try:
            self._descriptor = os.open(self._hidden, os.O_RDWR | os.O_NOFOLLOW, dir_fd=self._directory)
        except OSError:
            return False
        found = os.fstat(self._descriptor)
        good = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1
        if good:
            self._lock()
        if good and found.st_ino == inode and found.st_size == size_bytes:
            return True
        os.close(self._descriptor)
        self._descriptor = -1
        return False

    def create(self, size_bytes: int) -> None:
        self.reopen(None, size_bytes)  # raises if another mover holds it
        with disk_errors("target_missing_directory"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._hidden, dir_fd=self._directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            self._descriptor = os.open(self._hidden, flags, 0o600, dir_fd=self._directory)
            self._lock()
            reserve(self._descriptor, size_bytes)

    def inode(self) -> int:
        return os.fstat(self._descriptor).st_ino

    def write(self, view: memoryview, offset: int) -> None:
        with disk_errors("target_missing_directory"):
            while len(view):
                count = os.pwrite(self._descriptor, view, offset)
                view, offset = view[count:], offset + count

    def read(self, offset: int, size_bytes: int) -> bytes:
        with disk_errors("target_missing_directory"):
            return os.pread(self._descriptor, size_bytes, offset)

    def sync_data(self) -> None:
        with disk_errors("target_missing_directory"):
            os.fdatasync(self._descriptor)

    def place(self) -> None:
        """Everything is written and verified: make it durable, then let it take the target's name."""
        mode = self.old_mode()
        with disk_errors("target_missing_directory"):
            os.fchmod(self._descriptor, default_mode() if mode is None else mode)
            os.fsync(self._descriptor)
            # Another file by our hidden name would be some other mover's, and perhaps not whole.
            if os.stat(self._hidden, dir_fd=self._directory, follow_symlinks=False).st_ino != self.inode():
                raise AnotherMover()
            os.rename(self._hidden, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)

    def remove(self) -> None:
        """Also clears what an earlier run left, even if this one never opened it."""
        with contextlib.suppress(OSError):
            os.unlink(self._hidden, dir_fd=self._directory)

    def close(self) -> None:
        for descriptor in (self._descriptor, self._directory):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._descriptor = self._directory = -1

    def _lock(self) -> None:
        # A requeued job may start while its first run is still alive. Best effort: some disks cannot lock.
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AnotherMover() from None
        except OSError:
            pass


class AnotherMover(Failed):
    """Kept apart from its kin, for the hidden file must then be left alone."""

    def __init__(self) -> None:
        super().__init__("interrupted", "Another mover is at work on this transfer.")


class SourceFile:
    """The file being put; it must stay as it was from the first look to the last."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        with disk_errors("source_missing"):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO must not hang us
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise Failed("source_missing", "The path does not name a regular file.")
        self.identity = self._identity(found)

    @staticmethod
    def _identity(found: os.stat_result) -> List[int]:
        return [found.st_size, found.st_mtime_ns, found.st_ino]

    def read(self, offset: int, size_bytes: int) -> bytes:
        with disk_errors("source_missing"):
            return os.pread(self._descriptor, size_bytes, offset)

    def check(self, as_it_was: Any) -> None:
        """Both the open file and its name: a new file may have been renamed over it."""
        now = []  # type: List[List[int]]
        with contextlib.suppress(OSError):
            now = [self._identity(os.fstat(self._descriptor)), self._identity(os.stat(self._path))]
        if now != [as_it_was, as_it_was]:
            raise Failed("source_changed", "The file changed while it was being moved; it was not uploaded.")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


class State:
    """The state directory, or nowhere: what must outlive this process."""

    def __init__(self, directory: Optional[str]) -> None:
        self.directory = directory
        if directory is not None:
            with contextlib.suppress(OSError):
                os.makedirs(directory, 0o700, exist_ok=True)

    def load(self, name: str) -> Document:
        if self.directory is None:
            return {}
        with contextlib.suppress(OSError, ValueError):
            # Whoever owns the directory may have put anything there; a pipe must not stop us.
            descriptor = os.open(os.path.join(self.directory, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return {}
                document = json.loads(file.read().decode("utf-8"))
            if isinstance(document, dict):
                return document
        return {}

    def save(self, name: str, document: Document) -> bool:
        """Atomically; False when it could not be kept."""
        if self.directory is None:
            return False
        final = os.path.join(self.directory, name)
        beside = final + ".new"
        try:
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(document).encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, final)
        except OSError as error:
            print("{} could not be written ({})".format(name, plain(error)), file=sys.stderr)
            return False
        return True

    def forget(self, name: str) -> None:
        if self.directory is not None:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.directory, name))


# --- progress -------------------------------------------------------------------------------------


class Progress:
    """What has been done so far, counted by all threads."""

    def __init__(self, clock: Clock) -> None:
        self.phase = "moving"
        self.bytes_moved = 0  # every payload byte on the wire, also those of parts sent twice
        self.bytes_done = 0
        self.bytes_resumed = 0
        self.retries = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._samples = collections.deque(maxlen=6)  # type: collections.deque[Tuple[float, int]]
        self._samples.append((clock.monotonic(), 0))

    def moved(self, count: int) -> None:
        with self._lock:
            self.bytes_moved += count
            self.bytes_done += count

    def undone(self, count: int) -> None:
        with self._lock:
            self.bytes_done -= count

    def resumed(self, count: int) -> None:
        with self._lock:
            self.bytes_done += count
            self.bytes_resumed += count

    def retried(self) -> int:
        with self._lock:
            self.retries += 1
            return self.retries

    def start_over(self) -> None:
        with self._lock:
            self.bytes_done = self.bytes_resumed = 0

    def document(self, ticket: Ticket) -> Document:
        with self._lock:
            now = self._clock.monotonic()
            since, moved_then = self._samples[0]
            rate = (self.bytes_moved - moved_then) / (now - since) if now > since else 0.0
            self._samples.append((now, self.bytes_moved))
            return {
                "version": 1,
                "transfer_id": ticket.transfer_id,
                "bytes_done": self.bytes_done,
                "size_bytes": ticket.size_bytes,
                "rate_bytes_per_second": round(rate, 1),
                "phase": self.phase,
                "at_epoch_seconds": self._clock.wall(),
            }


class Reporter:
    """Tells how far the transfer is, from a thread of its own; whatever fails here is nobody's concern."""

    def __init__(self, leg: "Leg", on_progress: Optional[Callable[[Document], None]]) -> None:
        self._leg = leg
        self._on_progress = on_progress
        self._ended = threading.Event()
        self._line = Line(leg.road, leg.clock, self._ended)
        self._told_at = None  # type: Optional[float]
        self._thread = threading.Thread(target=self._run, name="stagecoach-progress", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        while self._thread.is_alive():
            self._line.cut()
            self._thread.join(POLL_SECONDS)
            if self._line.clock.monotonic() - (self._told_at or 0.0) > PATIENCE_WITH_HALTED_THREADS_SECONDS:
                break
        self._leg.progress.phase = "ended"
        self._line = Line(self._leg.road, self._leg.clock, threading.Event())
        self._tell(last=True)
        self._line.drop()

    def _run(self) -> None:
        while not self._ended.wait(PROGRESS_SECONDS if self._on_progress is None else LISTENER_SECONDS):
            self._tell(last=False)

    def _tell(self, last: bool) -> None:
        ticket = self._leg.ticket
        if ticket is None:
            return
        document = self._leg.progress.document(ticket)
        if self._on_progress is not None:
            with contextlib.suppress(Exception):
                self._on_progress(document)
        now = self._line.clock.monotonic()
        paced = last or self._on_progress is not None
        too_soon = paced and self._told_at is not None and now < self._told_at + PROGRESS_SECONDS
        if ticket.progress_url and not too_soon:
            self._told_at = now
            with contextlib.suppress(Exception):
                put_document(self._line, ticket.progress_url, document)


def put_document(line: Line, url: str, document: Document) -> None:
    body = json.dumps(document).encode("utf-8")
    response = line.ask("PUT", url, length=len(body), feed=lambda send: send(body), stall_seconds=10.0)
    said = line.read_all(response)
    if response.status not in (200, 201, 204):
        raise refusal(response.status, said, url, line.clock.wall(), "store_refused")


# --- the threads ----------------------------------------------------------------------------------


class Crew:
    """The threads of one task. The first failure, or the word to stop, halts and wakes them all."""

    def __init__(self, road: Road, clock: Clock, stop: threading.Event) -> None:
        self._road = road
        self._clock = clock
        self._stop = stop
        self._halt = threading.Event()
        self._failure = None  # type: Optional[BaseException]
        self._was_halted = False
        self._answer = None  # type: Any
        self.stuck = False

    def run(self, work: Callable[[Line], T], size: int = 1, tick: Optional[Callable[[], None]] = None) -> T:
        """Runs `work` in so many threads, `tick` now and then in this one; gives an answer of `work`."""
        lines = [Line(self._road, self._clock, self._halt) for _ in range(size)]
        threads = []  # type: List[threading.Thread]
        try:
            for line in lines:
                thread = threading.Thread(target=self._one, args=(work, line), name="stagecoach-mover", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the host allows no more threads: fewer will do
                    if not threads:
                        raise
                    break
                threads.append(thread)
            while any(thread.is_alive() for thread in threads) and not self._halt.is_set():
                for thread in threads:
                    if thread.is_alive():
                        thread.join(POLL_SECONDS)
                        break
                if self._stop.is_set():
                    break
                if tick is not None:
                    tick()
        finally:
            self._wind_up(threads, lines)
        if self._failure is not None:
            raise self._failure
        if self._was_halted or self.stuck:
            raise Failed("interrupted", "The mover was stopped before the transfer was complete; run it again.")
        answer = self._answer  # type: T
        return answer

    def _wind_up(self, threads: List[threading.Thread], lines: List[Line]) -> None:
        if any(thread.is_alive() for thread in threads):
            self._halt.set()
        began = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            if time.monotonic() - began > PATIENCE_WITH_HALTED_THREADS_SECONDS:
                self.stuck = True  # in the kernel, on a dead file system or name server; it will not write any more
                return
            for line in lines:
                line.cut()
            for thread in threads:
                if thread.is_alive():
                    thread.join(POLL_SECONDS)
                    break
        for line in lines:
            line.drop()

    def _one(self, work: Callable[[Line], T], line: Line) -> None:
        try:
            self._answer = work(line)
        except Halted:
            self._was_halted = True
        except Exception as error:
            if self._halt.is_set():
                self._was_halted = True  # a line cut from outside fails in many ways
            else:
                self._failure = error
                self._halt.set()


class PartQueue:
    """Hands out the parts in ascending order: some stores keep what comes far out of order in memory."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = iter(parts)
        self._lock = threading.Lock()

    def take(self) -> Optional[Part]:
        with self._lock:
            return next(self._parts, None)


# --- the legs -------------------------------------------------------------------------------------


class Leg:
    """One ticket carried out: what fetching and putting have in common."""

    kind = ""

    def __init__(
        self,
        read_ticket: Callable[[Line], Any],
        reload_ticket: Optional[Callable[[Line], Any]] = None,
        state_directory: Optional[str] = None,
        on_progress: Optional[Callable[[Document], None]] = None,
        stop: Optional[threading.Event] = None,
        concurrency: Optional[int] = None,
        verify: Optional[bool] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        self.clock = clock or Clock()
        self.road = Road()
        self.stop = stop or threading.Event()
        self.state = State(state_directory)
        self.progress = Progress(self.clock)
        self.ticket = None  # type: Optional[Ticket]
        self.receipt_kept = state_directory is None
        self._read_ticket = read_ticket
        self._reload_ticket = reload_ticket
        self._on_progress = on_progress
        self._concurrency = concurrency
        self._verify = verify
        self._renewal = threading.Lock()
        self._renewals = 0
        self._stuck = False
        self.finished = {}  # type: Dict[int, Any]
        self.finished_lock = threading.Lock()
        self.proved = []  # type: List[Dict[str, str]]
        self.etag = None  # type: Optional[str]
        self.saved_count = 0
        self._save_due = 0.0

    def carry_out(self) -> Document:
        """The whole life of a ticket. Gives the receipt; a transfer that fails raises nothing."""
        started = self.clock.wall()
        code, message = None, ""  # type: Optional[str], str
        reporter = Reporter(self, self._on_progress)
        reporter.start()
        receipt = None  # type: Optional[Document]
        try:
            document = self.aside(lambda line: self.persist(line, lambda: self._read_ticket(line)))
            self.ticket = Ticket(document, self.kind)
            receipt = self.earlier_receipt()
            if receipt is None:
                self._run_resumably()
                message = "{} bytes were moved and verified ({}).".format(
                    self.ticket.size_bytes, ", ".join(proof["how"] for proof in self.proved)
                )
        except Failed as failure:
            code, message = failure.code, failure.message
        except Exception as error:
            traceback.print_tb(error.__traceback__)  # places in this file, never values
            code = "mover_error"
            message = "The mover failed: {} {}".format(type(error).__name__, redact(str(error))).strip()
        finally:
            reporter.end()
        if receipt is None:
            receipt = self._receipt(code, message, started)
        self._hand_over(receipt)
        return receipt

    # What a kind of leg says for itself:

    def earlier_receipt(self) -> Optional[Document]:
        """The receipt of an earlier run, if that one already did all there is to do."""
        receipt = self.state.load("receipt.json")
        ticket = self.the_ticket()
        same = receipt.get("transfer_id") == ticket.transfer_id and receipt.get("kind") == self.kind
        done = same and receipt.get("ok") is True and receipt.get("size_bytes") == ticket.size_bytes
        return receipt if done else None

    def run(self) -> None:
        raise NotImplementedError

    def journal(self) -> Document:
        raise NotImplementedError

    def give_up(self) -> None:
        """After a final failure: leave nothing behind."""

    def close(self) -> None:
        """Ends what `run` opened."""

    # What they share:

    def the_ticket(self) -> Ticket:
        if self.ticket is None:
            raise Failed("ticket_unreadable", "There is no ticket.")
        return self.ticket

    @property
    def verify(self) -> bool:
        return self.the_ticket().verify if self._verify is None else self._verify

    def crew_size(self) -> int:
        asked = self._concurrency or self.the_ticket().concurrency or min(8, max(4, os.cpu_count() or 4))
        return max(1, min(asked, MOST_CONNECTIONS, self.the_ticket().part_count))

    def crew(self, work: Callable[[Line], T], size: int, tick: Optional[Callable[[], None]] = None) -> T:
        crew = Crew(self.road, self.clock, self.stop)
        try:
            return crew.run(work, size, tick)
        finally:
            self._stuck = self._stuck or crew.stuck

    def aside(self, work: Callable[[Line], T]) -> T:
        """Even a single request runs in a thread, so that this one always hears the word to stop."""
        return self.crew(work, 1)

    def persist(self, line: Line, attempt: Callable[[], T], mark: Callable[[], int] = lambda: 0) -> T:
        """Tries until it succeeds or patience ends; `mark` grows when a failed attempt got somewhere."""
        failures, mark_then = 0, mark()
        while True:
            renewals = self._renewals
            try:
                return attempt()
            except Expired as expired:
                self._renew(line, renewals, expired)
                self.progress.retried()
            except Trouble as trouble:
                failures = 1 if mark() > mark_then else failures + 1
                mark_then = mark()
                line.check()
                budget = 64 + 4 * (self.ticket.part_count if self.ticket else 1)
                if failures >= ATTEMPTS_PER_REQUEST or self.progress.retried() > budget:
                    raise Failed(trouble.code, trouble.message) from None
                if not trouble.at_once:
                    ceiling = min(LONGEST_PAUSE_SECONDS, 0.5 * 2**failures)
                    self.clock.pause(self.clock.jitter(ceiling), line.halt)
            line.check()

    def _renew(self, line: Line, renewals: int, expired: Expired) -> None:
        """Reads the ticket again, once for all threads that met the same expiry."""
        with self._renewal:
            if self._renewals != renewals:
                return
            before = self.the_ticket()
            if self._reload_ticket is None or self._renewals >= MOST_RENEWALS:
                raise expired.as_failure()
            reload_ticket = self._reload_ticket
            for again in range(ATTEMPTS_PER_REQUEST):
                try:
                    after = Ticket(reload_ticket(line), self.kind)
                    break
                except Trouble as trouble:
                    self.progress.retried()
                    if again == ATTEMPTS_PER_REQUEST - 1:
                        raise Failed(trouble.code, trouble.message) from None
                    self.clock.pause(self.clock.jitter(min(LONGEST_PAUSE_SECONDS, 2.0**again)), line.halt)
                    line.check()
            if after.identity() != before.identity():
                raise Failed("ticket_unreadable", "The renewed ticket is of another transfer.")
            if after.urls() == before.urls():
                raise expired.as_failure()
            self.ticket = after
            self._renewals += 1

    def look(self, line: Line) -> ObjectSeen:
        """HEAD of the object."""

        def once() -> ObjectSeen:
            url = self.the_ticket().head_url
            # One store reads the whole object to answer this.
            response = line.ask("HEAD", url, stall_seconds=5 * self.road.stall_seconds)
            body = line.read_all(response)
            if response.status != 200:
                raise refusal(response.status, body, url, self.clock.wall(), "object_missing")
            length = response.getheader("Content-Length") or ""
            if not re.match(r"[0-9]{1,19}\Z", length):
                raise Trouble("The store does not say how large the object is.", "store_refused")
            return ObjectSeen(int(length), etag_of(response), is_sealed(response), response.getheader("Last-Modified"))

        return self.persist(line, once)

    def finish_part(self, part: Part, entry: Any) -> None:
        with self.finished_lock:
            self.finished[part.number] = entry

    def digest(
        self, line: Line, read: Callable[[int, int], bytes], offset: int, size_bytes: int, names: Set[str]
    ) -> Dict[str, str]:
        """Digests of a stretch of the file as it stands on the disk; shorter when the file is."""
        running = {name: new_digest(name) for name in names}
        end = offset + size_bytes
        while offset < end:
            line.check()
            data = read(offset, min(BUFFER_BYTES, end - offset))
            if not data:
                break
            for one in running.values():
                one.update(data)
            offset += len(data)
        return {name: one.hexdigest() for name, one in running.items()}

    def journal_identity(self) -> Document:
        ticket = self.the_ticket()
        return {
            "transfer_id": ticket.transfer_id,
            "kind": self.kind,
            "size_bytes": ticket.size_bytes,
            "part_size_bytes": ticket.part_size_bytes,
        }

    def prove(self, how: str, value: str) -> None:
        self.proved.append({"how": how, "value": value})

    def prove_said_digests(self, found: Dict[str, str]) -> None:
        for name, said in sorted(self.the_ticket().digests.items()):
            if found[name] != said:
                raise Failed("digest_mismatch", "The file's {} is not the one that was announced.".format(name))
            self.prove(name, said)

    def save_if_due(self) -> None:
        began = self.clock.monotonic()
        if began >= self._save_due:
            self.save_journal()
            # Syncing may be slow: never spend more than a tenth of the time on it.
            now = self.clock.monotonic()
            self._save_due = now + max(JOURNAL_SECONDS, 10 * (now - began))

    def save_journal(self) -> None:
        if self.state.directory is not None and len(self.finished) != self.saved_count:
            document = self.journal()
            self.state.save("journal.json", document)
            self.saved_count = len(document["parts"])

    def _run_resumably(self) -> None:
        try:
            self.run()
        except Failed as failure:
            resumable = failure.code in MAY_RUN_AGAIN
            if resumable and self.state.directory is not None:
                with contextlib.suppress(Failed):
                    self.save_journal()
            if not isinstance(failure, AnotherMover) and not (resumable and self.state.directory is not None):
                self.give_up()
            raise
        except BaseException:
            self.give_up()
            raise
        finally:
            if not self._stuck:  # a descriptor's number must not be given to another file under a stuck thread
                self.close()
        self.state.forget("journal.json")

    def _receipt(self, code: Optional[str], message: str, started: float) -> Document:
        ticket = self.ticket
        return {
            "version": 1,
            "transfer_id": ticket.transfer_id if ticket else "",
            "kind": self.kind,
            "ok": code is None,
            "code": code,
            "message": message,
            "size_bytes": ticket.size_bytes if ticket and code is None else 0,
            "bytes_moved": self.progress.bytes_moved,
            "bytes_resumed": self.progress.bytes_resumed,
            "retries": self.progress.retries,
            "etag": self.etag,
            "proved": self.proved if code is None else [],
            "started_at_epoch_seconds": started,
            "ended_at_epoch_seconds": self.clock.wall(),
            "host": socket.gethostname(),
            "mover_version": MOVER_VERSION,
        }

    def _hand_over(self, receipt: Document) -> None:
        """First to the disk, then to the store; short of breath when the host wants us gone."""
        self.receipt_kept = self.state.save("receipt.json", receipt) or self.receipt_kept
        if self.ticket is None or not self.ticket.receipt_url:
            return
        hurried = receipt["code"] == "interrupted"
        line = Line(self.road, self.clock, threading.Event())
        for again in range(1 if hurried else 4):
            try:
                put_document(line, self.ticket.receipt_url, receipt)
                self.receipt_kept = True
                break
            except Exception as error:
                if isinstance(error, Expired) and not hurried:
                    with contextlib.suppress(Exception):
                        self._renew(line, self._renewals, error)
                if again < 3 and not hurried:
                    self.clock.pause(self.clock.jitter(2.0**again), self.stop)
        else:
            print("The receipt could not be put into the store.", file=sys.stderr)
        line.drop()


class Fetch(Leg):
    """Object to file."""

    kind = "fetch"
    target = None  # type: Optional[TargetFile]
    seen = ObjectSeen(0, None, False, None)

    def earlier_receipt(self) -> Optional[Document]:
        receipt = super().earlier_receipt()
        if receipt is not None:
            ticket = self.the_ticket()
            with contextlib.closing(TargetFile(ticket.path, ticket.transfer_id, ticket.root)) as target:
                if target.has_size(ticket.size_bytes):
                    return receipt
        return None

    def run(self) -> None:
        ticket = self.the_ticket()
        self.target = TargetFile(ticket.path, ticket.transfer_id, ticket.root)
        self.progress.phase = "waiting" if ticket.wait_until is not None else "moving"
        self.seen = self.aside(self._await_object)
        journal = self.state.load("journal.json")
        if self._fits(journal) and self.target.reopen(journal.get("inode"), ticket.size_bytes):
            self.finished = {int(number): md5 for number, md5 in journal["parts"].items()}
        else:
            self.target.create(ticket.size_bytes)
        try:
            self._fetch_all()
        except ObjectDiffers:
            # Perhaps the object was replaced meanwhile, or a proxy spoiled a part. Once more, from nothing.
            self.finished, self.proved, self.saved_count = {}, [], 0
            self.state.forget("journal.json")
            self.progress.start_over()
            self.seen = self.aside(self.look)
            try:
                self._fetch_all()
            except ObjectDiffers as error:
                raise Failed("digest_mismatch", str(error)) from None
        self.target.place()

    def journal(self) -> Document:
        with self.finished_lock:
            parts = {str(number): md5 for number, md5 in self.finished.items()}
        self.the_target().sync_data()  # the journal may only name what would survive a power cut
        return {
            "version": 1,
            "etag": self.seen.state(),
            "inode": self.the_target().inode(),
            "parts": parts,
            **self.journal_identity(),
        }

    def give_up(self) -> None:
        if self.target is not None:
            self.target.remove()
        self.state.forget("journal.json")

    def close(self) -> None:
        if self.target is not None:
            self.target.close()

    def the_target(self) -> TargetFile:
        if self.target is None:
            raise Failed("mover_error", "The target is not open.")
        return self.target

    def part_md5s(self) -> List[str]:
        return [self.finished[number] for number in range(1, self.the_ticket().part_count + 1)]

    def _fits(self, journal: Document) -> bool:
        parts = journal.get("parts")
        same = all(journal.get(key) == value for key, value in self.journal_identity().items())
        same = same and self.seen.state() is not None and journal.get("etag") == self.seen.state()
        return same and isinstance(parts, dict) and all(re.match(r"[1-9][0-9]{0,6}\Z", number) for number in parts)

    def _await_object(self, line: Line) -> ObjectSeen:
        pause = 1.0
        while True:
            until = self.the_ticket().wait_until
            try:
                return self.look(line)
            except Failed as failure:
                if until is None or failure.code not in ("object_missing", "store_unreachable"):
                    raise
            left = until - self.clock.wall()
            if left <= 0:
                raise Failed("wait_timed_out", "The object did not arrive in the store in time.")
            self.clock.pause(min(pause, left), line.halt)
            line.check()
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    def _fetch_all(self) -> None:
        ticket = self.the_ticket()
        self.etag = self.seen.etag or ticket.expected_etag
        if self.seen.size_bytes != ticket.size_bytes:
            raise Failed(
                "size_mismatch",
                "The object has {} bytes where {} were announced.".format(self.seen.size_bytes, ticket.size_bytes),
            )
        # The two may be of different kinds, MD5 of the whole and MD5 of MD5s; then each is compared on its own.
        etags = [etag for etag in (self.seen.etag, ticket.expected_etag) if etag]
        if len({is_md5(etag) for etag in etags}) < len(set(etags)):
            raise Failed("digest_mismatch", "The object in the store is not the one that the ticket was made for.")
        self.progress.phase = "moving"
        queue = PartQueue(ticket.parts())
        self.crew(lambda line: self._fetch_parts(line, queue), self.crew_size(), self.save_if_due)
        self.save_journal()
        self.progress.phase = "verifying"
        self._verify_whole()

    def _fetch_parts(self, line: Line, queue: PartQueue) -> None:
        buffer = memoryview(bytearray(BUFFER_BYTES))
        part = queue.take()
        while part is not None:
            if not self._still_good(line, part):
                self._fetch_part(line, part, buffer)
            part = queue.take()

    def _still_good(self, line: Line, part: Part) -> bool:
        """A part of an earlier run counts only if the disk still gives back what was written."""
        md5 = self.finished.get(part.number)
        if part.number not in self.finished:
            return False
        read = self.the_target().read
        if self.verify and md5 != self.digest(line, read, part.offset, part.size, {"md5"})["md5"]:
            with self.finished_lock:
                del self.finished[part.number]
            return False
        self.progress.resumed(part.size)
        return True

    def _fetch_part(self, line: Line, part: Part, buffer: memoryview) -> None:
        target = self.the_target()
        md5 = new_digest("md5") if self.verify else None
        done = 0

        def once() -> None:  # takes up where the attempt before broke off, digest and all
            nonlocal done
            if done == part.size:
                return
            first, last = part.offset + done, part.offset + part.size - 1
            url = self.the_ticket().get_url
            response = line.ask("GET", url, {"Range": "bytes={}-{}".format(first, last)})
            if response.status not in (200, 206):
                raise refusal(response.status, line.read_all(response), url, self.clock.wall(), "object_missing")
            self._check_range(response, first, last)
            while done < part.size:
                count = line.read_into(response, buffer[: part.size - done])
                target.write(buffer[:count], part.offset + done)
                if md5 is not None:
                    md5.update(buffer[:count])
                done += count
                self.progress.moved(count)

        self.persist(line, once, lambda: done)
        self.finish_part(part, None if md5 is None else md5.hexdigest())

    def _check_range(self, response: http.client.HTTPResponse, first: int, last: int) -> None:
        """The status alone proves nothing: stores answer a range with 200, or with the whole object."""
        size = self.the_ticket().size_bytes
        etag = etag_of(response)
        if etag is not None and self.seen.etag is not None and etag != self.seen.etag:
            raise ObjectDiffers("The object was replaced while it was being fetched.")
        length = response.getheader("Content-Length")
        said = response.getheader("Content-Range")
        if said is not None:
            found = re.match(r"\s*bytes\s+([0-9]+)-([0-9]+)/([0-9]+|\*)\s*\Z", said)
            right = (
                found is not None
                and (int(found.group(1)), int(found.group(2))) == (first, last)
                and found.group(3) in ("*", str(size))
            )
        else:
            right = response.status == 200 and first == 0 and last == size - 1 and length is not None
        if not right or (length is not None and length.strip() != str(last - first + 1)):
            raise Trouble("The store sent another range than the one asked for.", "store_refused")

    def _verify_whole(self) -> None:
        ticket = self.the_ticket()
        etags = {etag for etag in (self.seen.etag, ticket.expected_etag) if etag and self.verify}
        etags = set() if self.seen.sealed else etags
        plain_etags = {etag for etag in etags if is_md5(etag)}
        names = set(ticket.digests)
        if plain_etags and ticket.part_count > 1:
            names.add("md5")
        whole = {}  # type: Dict[str, str]
        if names:
            whole = self.aside(lambda line: self.digest(line, self.the_target().read, 0, ticket.size_bytes, names))
        self.prove("size", str(ticket.size_bytes))
        for etag in plain_etags:
            if etag != (whole["md5"] if ticket.part_count > 1 else self.finished[1]):
                raise ObjectDiffers("The file's MD5 is not the one that the store gives for the object.")
            if "md5" not in ticket.digests:
                self.prove("md5", etag)
        for etag in etags:
            if has_parts(etag, ticket.part_count):
                if etag != multipart_etag(self.part_md5s()):
                    raise ObjectDiffers("The MD5s of the parts do not add up to the object's ETag.")
                self.prove("multipart_etag", etag)
        self.prove_said_digests(whole)


class Put(Leg):
    """File to object. The journal outlives a failure: a part sent twice can cost the whole upload."""

    kind = "put"
    source = None  # type: Optional[SourceFile]

    def run(self) -> None:
        ticket = self.the_ticket()
        self.source = SourceFile(ticket.path)
        if self.source.identity[0] != ticket.size_bytes:
            raise Failed(
                "source_changed",
                "The file has {} bytes where {} were announced.".format(self.source.identity[0], ticket.size_bytes),
            )
        journal = self.state.load("journal.json")
        if all(journal.get(key) == value for key, value in self.journal_identity().items()):
            self.source.check(journal.get("source"))
            self._take_over(journal.get("parts"))
        queue = PartQueue(part for part in ticket.parts() if part.number not in self.finished)
        self.crew(lambda line: self._send_parts(line, queue), self.crew_size(), self.save_if_due)
        self.save_journal()
        self.progress.phase = "verifying"
        if ticket.digests:
            self.prove_said_digests(self.aside(lambda line: self._digest_source(line, set(ticket.digests))))
        self.source.check(self.source.identity)
        said = self.aside(self._complete)
        self._verify_object(said)

    def journal(self) -> Document:
        with self.finished_lock:
            parts = {str(number): entry for number, entry in self.finished.items()}
        return {"version": 1, "source": self.the_source().identity, "parts": parts, **self.journal_identity()}

    def close(self) -> None:
        if self.source is not None:
            self.source.close()

    def the_source(self) -> SourceFile:
        if self.source is None:
            raise Failed("mover_error", "The source is not open.")
        return self.source

    def part_md5s(self) -> List[str]:
        return [self.finished[number][1] for number in range(1, self.the_ticket().part_count + 1)]

    def _take_over(self, parts: Any) -> None:
        for part in self.the_ticket().parts():
            entry = parts.get(str(part.number)) if isinstance(parts, dict) else None
            if (
                isinstance(entry, list)
                and len(entry) == 2
                and isinstance(entry[0], str)
                and (is_md5(entry[1]) if isinstance(entry[1], str) else not self.verify)
            ):
                self.finished[part.number] = entry
                self.progress.resumed(part.size)
        self.saved_count = len(self.finished)

    def _send_parts(self, line: Line, queue: PartQueue) -> None:
        part = queue.take()
        while part is not None:
            self._send_part(line, part)
            part = queue.take()

    def _send_part(self, line: Line, part: Part) -> None:
        source = self.the_source()

        def once() -> List[Optional[str]]:
            md5 = new_digest("md5") if self.verify else None
            sent = 0

            def feed(send: Callable[[Any], Any]) -> None:
                nonlocal sent
                while sent < part.size:
                    data = memoryview(source.read(part.offset + sent, min(BUFFER_BYTES, part.size - sent)))
                    if not len(data):
                        raise Failed("source_changed", "The file became shorter while it was being moved.")
                    if md5 is not None:
                        md5.update(data)
                    for start in range(0, len(data), SEND_BYTES):
                        line.check()
                        piece = data[start : start + SEND_BYTES]
                        send(piece)
                        sent += len(piece)
                        self.progress.moved(len(piece))

            url = self.the_ticket().part_urls[part.number - 1]
            try:
                response = line.ask("PUT", url, length=part.size, feed=feed)
                body = line.read_all(response)
                if response.status != 200 or b"<Error" in body:
                    status = 500 if response.status == 200 else response.status
                    raise refusal(status, body, url, self.clock.wall(), "store_refused")
                etag = response.getheader("ETag")
                if not etag:
                    raise Trouble("The store took a part without saying its ETag.", "store_refused")
                found = None if md5 is None else md5.hexdigest()
                comparable = found is not None and is_md5(bare_etag(etag)) and not is_sealed(response)
                if comparable and bare_etag(etag) != found:
                    raise Trouble("The store received a part otherwise than it was sent.", "digest_mismatch")
                return [etag, found]
            except BaseException:
                self.progress.undone(sent)
                raise

        self.finish_part(part, self.persist(line, once))

    def _digest_source(self, line: Line, names: Set[str]) -> Dict[str, str]:
        return self.digest(line, self.the_source().read, 0, self.the_ticket().size_bytes, names)

    def _complete(self, line: Line) -> Optional[str]:
        """The ETag in the answer or ""; None for an unknown upload, which may be complete already."""
        rows = "".join(
            "<Part><ETag>{}</ETag><PartNumber>{}</PartNumber></Part>".format(
                html.escape(self.finished[number][0], quote=False), number
            )
            for number in sorted(self.finished)
        )
        body = (
            "<?xml version='1.0' encoding='utf-8'?>\n"
            '<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' + rows + "</CompleteMultipartUpload>"
        ).encode()

        def once() -> Optional[str]:
            url = self.the_ticket().complete_url
            # Putting ten thousand parts together may take the store minutes.
            response = line.ask(
                "POST",
                url,
                length=len(body),
                feed=lambda send: send(body),
                stall_seconds=5 * self.road.stall_seconds,
            )
            answer = line.read_all(response)
            if response.status == 404:
                return None
            if response.status != 200 or b"<Error" in answer:  # S3 may say 200 first and fail afterwards
                status = 400 if response.status == 200 and b"<Code>" in answer else max(response.status, 400)
                raise refusal(status, answer, url, self.clock.wall(), "store_refused")
            found = re.search(rb"<ETag>([^<]{1,256})</ETag>", answer)
            return bare_etag(html.unescape(found.group(1).decode("utf-8", "replace"))) if found else ""

        return self.persist(line, once)

    def _completed_object(self, said: Optional[str]) -> ObjectSeen:
        """What the store has now. Who may not look (a client) believes the answer to the completion."""
        ticket = self.the_ticket()
        if not ticket.head_url:
            if said is None:
                raise Failed("store_refused", "The store does not know this upload: it is complete already, or was aborted.")
            return ObjectSeen(ticket.size_bytes, said or None, False, None)
        try:
            return self.aside(self.look)
        except Failed as failure:
            if failure.code == "object_missing":
                raise Failed("store_refused", "The store lost the upload: there is no object.") from None
            raise

    def _verify_object(self, said: Optional[str]) -> None:
        ticket = self.the_ticket()
        seen = self._completed_object(said)
        self.etag = seen.etag or said or None
        if seen.size_bytes != ticket.size_bytes:
            raise Failed(
                "size_mismatch",
                "The object has {} bytes where {} were sent.".format(seen.size_bytes, ticket.size_bytes),
            )
        if ticket.head_url:
            self.prove("size", str(seen.size_bytes))
        if not self.verify or seen.sealed:
            return
        self.prove("part_md5", multipart_etag(self.part_md5s()))
        etags = [etag for etag in (seen.etag, said) if etag]
        for etag in etags:
            if has_parts(etag, ticket.part_count):
                if etag != multipart_etag(self.part_md5s()):
                    raise Failed("digest_mismatch", "The object's ETag is not that of the parts that were sent.")
                self.prove("multipart_etag", etag)
                return
        if seen.etag is not None and is_md5(seen.etag) and (ticket.part_count == 1 or said is None):
            # An unknown upload and a plain MD5: only the whole file can tell whether the object is ours.
            found = self.aside(lambda line: self._digest_source(line, {"md5"}))["md5"]
            if found != seen.etag:
                raise Failed("digest_mismatch", "The object's MD5 is not that of the file.")
            self.prove("md5", found)


# --- the doors ------------------------------------------------------------------------------------


def fetch(
    ticket: Document,
    state_directory: Optional[str] = None,
    on_progress: Optional[Callable[[Document], None]] = None,
    stop: Optional[threading.Event] = None,
    reload_ticket: Optional[Callable[[], Document]] = None,
    concurrency: Optional[int] = None,
    verify: Optional[bool] = None,
    clock: Optional[Clock] = None,
) -> Document:
    """Carries out a fetch ticket and gives its receipt. A failed transfer raises nothing.

    on_progress is called from another thread. Setting `stop` ends the transfer soon with `interrupted`.
    reload_ticket gives a ticket with fresh URLs when a store says that one has expired.
    """
    again = None if reload_ticket is None else renewed_by(reload_ticket)
    return Fetch(lambda line: ticket, again, state_directory, on_progress, stop, concurrency, verify, clock).carry_out()


def put(
    ticket: Document,
    state_directory: Optional[str] = None,
    on_progress: Optional[Callable[[Document], None]] = None,
    stop: Optional[threading.Event] = None,
    reload_ticket: Optional[Callable[[], Document]] = None,
    concurrency: Optional[int] = None,
    verify: Optional[bool] = None,
    clock: Optional[Clock] = None,
) -> Document:
    """Carries out a put ticket and gives its receipt, as `fetch` does."""
    again = None if reload_ticket is None else renewed_by(reload_ticket)
    return Put(lambda line: ticket, again, state_directory, on_progress, stop, concurrency, verify, clock).carry_out()


def renewed_by(reload_ticket: Callable[[], Document]) -> Callable[[Line], Document]:
    def renew(line: Line) -> Document:
        try:
            return reload_ticket()
        except Exception:
            raise Trouble("The ticket could not be renewed.", "ticket_expired") from None

    return renew


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Moves one file between a disk and an S3 store as a ticket says.")
    parser.add_argument("kind", choices=("fetch", "put"))
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--ticket", metavar="FILE", help="the ticket itself")
    where.add_argument("--ticket-url-file", metavar="FILE", help="a file that holds the ticket's presigned address")
    parser.add_argument("--state-directory", metavar="DIR", help="journal and receipt; default: where FILE stands")
    parser.add_argument("--concurrency", type=int, metavar="N", help="connections at once")
    parser.add_argument("--no-verify", action="store_true", help="leave out the MD5 of the parts (benchmarks only)")
    options = parser.parse_args(arguments)
    if options.concurrency is not None and options.concurrency < 1:
        parser.error("--concurrency must be at least 1")

    source = TicketInFile(options.ticket) if options.ticket else TicketAtUrl(options.ticket_url_file)
    state_directory = options.state_directory or os.path.dirname(os.path.abspath(options.ticket or options.ticket_url_file))
    stop = threading.Event()
    leg = (Fetch if options.kind == "fetch" else Put)(
        source.read,
        source.read,
        state_directory,
        None,
        stop,
        options.concurrency,
        False if options.no_verify else None,
    )
    receipts = []  # type: List[Document]
    carrier = threading.Thread(target=lambda: receipts.append(leg.carry_out()), name="stagecoach-leg", daemon=True)

    # The handler runs inside the main thread and takes the lock of `stop`: this thread must never hold it.
    asked = []  # type: List[int]

    def on_signal(number: int, frame: Any) -> None:
        if not asked:
            asked.append(number)
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    carrier.start()
    while carrier.is_alive():
        carrier.join(1.0)

    receipt = receipts[0] if receipts else {"ok": False, "code": "mover_error", "message": "The mover broke down."}
    if not receipt["ok"]:
        print("{}: {}".format(receipt["code"], receipt["message"]), file=sys.stderr)
        return 75 if receipt["code"] in MAY_RUN_AGAIN else 1
    if not leg.receipt_kept:
        print("The file is in its place, but its receipt could not be kept.", file=sys.stderr)
        return 75
    print(receipt["message"])
    print(SUCCESS_PHRASES[options.kind], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
