#!/usr/bin/env python3
"""Moves one large file, or a directory, between a disk and an S3 object, through presigned URLs alone.

The mover is given a ticket and leaves a receipt (docs/ticket.md). It runs as an ordinary user inside a Slurm
job, on a transfer node and inside the client library, so it is one file that needs nothing but Python 3.6: no
pip, no S3 library, no keys. It knows no bucket, database or scheduler. Nothing that comes from outside is
trusted: not the ticket, not a status code without its body and length, not the disk after a crash.

    stagecoach_mover.py fetch|put (--ticket FILE | --ticket-url-file FILE) [--state-directory DIR] [...]
    stagecoach_mover.py discard --state-directory DIR --place DIR

What can go wrong is one of these:

    Failed         final for this run, with the stable code that the receipt carries
    Trouble        may pass: asked again with growing pauses, a bounded number of times
    Expired        a presigned URL was refused: the ticket is read again
    ObjectDiffers  what was fetched is not the object: everything is fetched once more
    Halted         somebody else asked this thread to stop
"""
# Python 3.6 is still the system Python of many clusters: spellings that are newer are out of reach here.

import argparse
import array
import base64
import binascii
import bisect
import calendar
import collections
import contextlib
import errno
import fcntl
import functools
import hashlib
import html
import http.client
import itertools
import json
import os
import random
import re
import select
import signal
import socket
import ssl
import stat
import struct
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.parse
import urllib.request
import zlib
from typing import IO, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple, TypeVar, Union

MOVER_VERSION = "1"
BUFFER_BYTES = 512 * 1024  # larger ones fall out of the processor's cache between reading, hashing and writing
WRITE_BYTES = 128 * 1024  # for larger ones some file systems look for larger stretches of free memory, and that takes long
SEND_BYTES = 128 * 1024  # sendall's timeout covers one call, so a slow line must manage this much within it
PIPE_BYTES = 1024 * 1024
WRITE_BACK_BYTES = 32 * 1024 * 1024
ATTEMPTS_PER_REQUEST = 8
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_ASKED_PAUSE_SECONDS = 120.0
HURRIED_CONNECTING_SECONDS = 3.0  # after SIGTERM: Slurm waits thirty seconds in all
MOST_RENEWALS = 100
JOURNAL_SECONDS = 2.0
PROGRESS_SECONDS = 2.0
LISTENER_SECONDS = 0.2
POLL_SECONDS = 0.1
PATIENCE_WITH_HALTED_THREADS_SECONDS = 10.0
MOST_PARTS = 1000000
MOST_CONNECTIONS = 64
MOST_CHOSEN_CONNECTIONS = 16
PACE_SECONDS = 1.0
PACE_AGAIN_SECONDS = 30.0
MOST_TASKS = 256
TASK_BEAT_SECONDS = 2.0
TASK_LOOK_SECONDS = 0.5
TASK_SILENCE_SECONDS = 600.0  # only the net: the scheduler ends a job whose task or node is gone
TASK_LAST_WORD_SECONDS = 60.0
VISIBLE_SECONDS = 90.0  # NFS clients may believe for a minute what they knew of a directory
LARGEST_PAGE_BYTES = 64 * 1024
LARGEST_TICKET_BYTES = 256 * 1024 * 1024
PROCESSOR_STATISTICS = "/proc/stat"
PLACES = {"fetch": "receive", "put": "send"}
TARGET_NAME = "target.json"
SMALL_BODY_BYTES = 64 * 1024
BLOCK_BYTES = 512  # of tar
ZERO_BLOCK = bytes(BLOCK_BYTES)
RECORD_BYTES = 20 * BLOCK_BYTES
LARGEST_TAR_EXTENSION_BYTES = 1024 * 1024
LONGEST_MEMBER_NAME_BYTES = 64 * 1024
MOST_LEVELS = 2048  # as many as a path that the system takes can have; each costs a member of a few bytes an inode
LARGEST_PIECE_BYTES = 8 * 1024 * 1024
READ_AHEAD_BYTES = 64 * 1024 * 1024
RESERVED_FROM_BYTES = 16 * 1024 * 1024
DIRECTORIES_OPEN = 32
FILES_OPEN = 16
NOTES_NAME = "directories"

MAY_RUN_AGAIN = ("interrupted", "another_mover", "store_unreachable")
GOES_ON_LATER = (*MAY_RUN_AGAIN, "ticket_expired")  # with another ticket
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

DIGEST_BYTES = {"md5": 16, "sha256": 32, "crc32": 4}
STORE_CHECKSUMS = ("crc32", "sha1", "sha256")  # CRC32C and CRC64NVME would take Python hours

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


class Crc32:
    """CRC-32 (of zip and zlib) with the methods of hashlib's digests."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: Any) -> None:
        self._value = zlib.crc32(data, self._value)

    def hexdigest(self) -> str:
        return "{:08x}".format(self._value & 0xFFFFFFFF)


def crc32_product(left: int, right: int) -> int:
    """Product of two polynomials over GF(2), modulo that of the CRC, in its bit-reflected notation (as in zlib)."""
    product = 0
    while left:
        if left & 0x80000000:
            product ^= right
        left = (left << 1) & 0xFFFFFFFF
        right = (right >> 1) ^ (0xEDB88320 if right & 1 else 0)
    return product


def crc32_shift(size_bytes: int) -> int:
    """What a CRC is multiplied with when so many bytes follow: x to the power of eight times as many."""
    shift, power = 0x80000000, 0x00800000
    while size_bytes:
        if size_bytes & 1:
            shift = crc32_product(power, shift)
        power = crc32_product(power, power)
        size_bytes >>= 1
    return shift


def new_digest(name: str) -> Any:
    if name == "crc32":
        return Crc32()
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
        self.place = self._document.get("place")
        if self.place not in (None, PLACES[kind]):
            raise self._unreadable("place")
        if self.place is not None and not {b".", b".."}.isdisjoint(self.path.split(b"/")):
            raise self._unreadable("path_base64")
        self.archive = self._document.get("archive")
        if self.archive not in (None, "tar"):
            raise self._unreadable("archive")
        self.to_measure = kind == "put" and self._document.get("size_bytes") is None
        self.limit_bytes = None  # type: Optional[int]
        if (self.archive is not None or self.to_measure) and self._document.get("limit_bytes") is not None:
            self.limit_bytes = self._number("limit_bytes", 0)
        self.size_bytes = 0 if self.to_measure else self._number("size_bytes", 0)
        self.part_size_bytes = self._announced_part_size_bytes = self._number("part_size_bytes", 1)
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
            if not isinstance(urls, list) or (not urls if self.to_measure else len(urls) != self.part_count):
                raise self._unreadable("upload.part_urls")
            self.part_urls = [self._url(url, "upload.part_urls") for url in urls]
            self.complete_url = self._url(there.get("complete_url"), "upload.complete_url")
            self.head_url = self._url(there.get("head_url"), "upload.head_url", optional=True)
        self.digests = self._digests()
        self.part_digests = self._part_digests()
        self.wait_until = self._wait()
        self.progress_url = self._url(self._document.get("progress_url"), "progress_url", optional=True)
        self.receipt_url = self._url(self._document.get("receipt_url"), "receipt_url", optional=True)
        self.concurrency = None  # type: Optional[int]
        if self._document.get("concurrency") is not None:
            self.concurrency = self._number("concurrency", 1)
        self.verify = self._document.get("verify", True) is not False
        self.wants_part_crc32 = kind == "put" and self.verify and self._document.get("part_crc32") is True
        self.attempt = 1 if self._document.get("attempt") is None else self._number("attempt", 1)

    def measure(self, size_bytes: int) -> None:
        """Where only a look at the source tells the size: that, and parts for which there are URLs enough."""
        if self.to_measure:
            least = self._announced_part_size_bytes
            self.size_bytes = size_bytes
            self.part_size_bytes = least * max(1, -(-size_bytes // (least * len(self.part_urls))))
            self.part_count = max(1, -(-size_bytes // self.part_size_bytes))

    def parts(self) -> Iterator[Part]:
        for index in range(self.part_count):
            offset = index * self.part_size_bytes
            yield Part(index + 1, offset, min(self.part_size_bytes, self.size_bytes - offset))

    def identity(self) -> Tuple[Any, ...]:
        """What a renewed ticket must not change."""
        sizes, said = (self.size_bytes, self.part_size_bytes), (self.digests, self.part_digests)
        return (self.transfer_id, self.kind, self.archive, self.place, self.path, sizes, said)

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
        for name in DIGEST_BYTES:
            if said.get(name) is not None:
                digests[name] = self._digest(name, said[name], "digests")
        return digests

    def _part_digests(self) -> Dict[str, Tuple[str, ...]]:
        said = self._document.get("part_digests") or {}
        if not isinstance(said, dict):
            raise self._unreadable("part_digests")
        digests = {}
        for name in DIGEST_BYTES:
            values = said.get(name)
            if values is None:
                continue
            if not isinstance(values, list) or len(values) != self.part_count:
                raise self._unreadable("part_digests")
            digests[name] = tuple(self._digest(name, value, "part_digests") for value in values)
        return digests

    def _digest(self, name: str, value: Any, key: str) -> str:
        if not isinstance(value, str) or not re.match(r"[0-9a-fA-F]{%d}\Z" % (2 * DIGEST_BYTES[name]), value):
            raise self._unreadable(key)
        return value.lower()

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
        self.connecting_seconds = min(self.stall_seconds, 20.0)
        self._proxies = urllib.request.getproxies()
        self._trust = None  # type: Optional[ssl.SSLContext]
        self._lock = threading.Lock()

    def open(self, scheme: str, host: str, port: int) -> Tuple[http.client.HTTPConnection, bool, Dict[str, str]]:
        """A connection not yet made, whether it wants whole URLs, and headers for every request."""
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
                http.client.HTTPConnection(to_host, to_port, timeout=self.connecting_seconds),
                bool(proxy),
                headers,
            )
        connection = http.client.HTTPSConnection(to_host, to_port, timeout=self.connecting_seconds, context=self._tls())
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
        self._buffer = None  # type: Optional[memoryview]
        self._pipe = None  # type: Optional[Pipe]
        self._patience_seconds = 0.0

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
            self._patience_seconds = stall_seconds or self._road.stall_seconds
            self._socket.settimeout(self._patience_seconds)
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

    def can_splice(self, response: http.client.HTTPResponse) -> bool:
        """Whether the body's bytes are on the socket just as they shall be in the file."""
        plain_socket = self._socket is not None and not isinstance(self._socket, ssl.SSLSocket)
        return plain_socket and KERNEL.can_splice() and response.length is not None and not response.chunked

    def read_ahead_bytes(self, response: http.client.HTTPResponse) -> int:
        """How much of the body was read together with its headers: that must be read before anything is spliced."""
        try:
            return min(len(response.fp.peek()), response.length or 0)
        except (OSError, ValueError) as error:
            self.drop()
            self.check()
            raise self._trouble(error) from None

    def splice(self, response: http.client.HTTPResponse) -> "Pipe":
        """Some of the body in a pipe, and never all: its end must be read, to end the answer.

        Nothing where the kernel turns out not to do it: then all must be read.
        """
        self.check()
        sock, pipe = self._socket, self._pipe or Pipe()
        self._pipe = pipe
        try:
            if sock is None or response.length is None:
                raise ConnectionResetError()
            while not pipe.holds:
                try:
                    pipe.holds = KERNEL.splice(sock.fileno(), pipe.writer, None, min(response.length - 1, PIPE_BYTES))
                except BlockingIOError:
                    wait_for(sock, select.POLLIN)
                    continue
                if not pipe.holds:
                    raise ConnectionResetError()
        except OSError as error:
            if not is_of_line(error):
                return pipe
            self.drop()
            self.check()
            raise self._trouble(error) from None
        response.length -= pipe.holds
        return pipe

    def buffer(self) -> memoryview:
        """This thread's own, used again and again."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(BUFFER_BYTES))
        return self._buffer

    def send_file(self, descriptor: int, offset: int, size_bytes: int) -> int:
        """For `feed`: some of an open file, straight from the system's cache. 0 at the file's end."""
        sock = self._socket
        if sock is None:
            raise ConnectionResetError()
        while True:
            try:
                return os.sendfile(sock.fileno(), descriptor, offset, size_bytes)
            except BlockingIOError:
                wait_for(sock, select.POLLOUT)

    def send(self, data: bytes) -> None:
        """For `feed`: what `send_file` cannot."""
        if self._connection is None:
            raise ConnectionResetError()
        self._connection.send(data)

    def can_send_file(self) -> bool:
        return sys.platform.startswith("linux") and not isinstance(self._socket, ssl.SSLSocket)

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
        if self._pipe is not None:  # what it holds belongs to the answer that is dropped
            self._pipe.close()
            self._pipe = None

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
        if self._connection is not None and self._connection.sock is not None and origin == self._origin and self._is_quiet():
            return True
        self.drop()
        self._response = None  # what it asked for does not hold for a connection that fails
        self._origin = origin
        connection, self._whole_urls, self._headers = self._road.open(*origin)
        self._patience_seconds = connection.timeout or 0.0
        try:
            connection.connect()
        except (OSError, http.client.HTTPException, ssl.CertificateError) as error:
            connection.close()
            self.check()
            raise self._trouble(error) from None
        self._connection = connection
        self._socket = connection.sock
        return False

    def _is_quiet(self) -> bool:
        """Whether an idle connection is as it should be: whatever can be read of it now is its end, or no answer of ours."""
        if self._socket is None:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return not poll.poll(0)

    def asked_pause_seconds(self) -> float:
        """What the last answer's Retry-After asks for; 0 when it says none."""
        response = self._response
        if response is None or response.status not in (429, 503):
            return 0.0
        said = response.getheader("Retry-After") or ""
        return min(float(said), LONGEST_ASKED_PAUSE_SECONDS) if re.match(r"[0-9]{1,9}\Z", said) else 0.0

    def _trouble(self, error: Exception, at_once: bool = False) -> Exception:
        if isinstance(error, ssl.CertificateError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
            return Failed("store_refused", "The store's certificate is not trusted here (see SSL_CERT_FILE).")
        if isinstance(error, socket.timeout):
            words = "The store was silent for {:g} seconds.".format(self._patience_seconds)
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


def is_of_line(error: OSError) -> bool:
    """Whether it is an error of connections, and not one that only files have."""
    return isinstance(error, (ConnectionError, socket.timeout, TimeoutError)) or error.errno in LINE_ERRORS


LINE_ERRORS = (
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENOBUFS, errno.ENOTCONN, errno.EPROTO, errno.EBADF),
)


def wait_for(sock: socket.socket, event: int) -> None:
    """Until the socket is ready for it, as long as its timeout says."""
    poll = select.poll()
    poll.register(sock.fileno(), event)
    seconds = sock.gettimeout()
    if not poll.poll(None if seconds is None else seconds * 1000):
        raise socket.timeout()


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
    if status == 407:
        return Failed(
            "store_refused", "The proxy on the way to the store refused ({}); see http_proxy, https_proxy.".format(said)
        )
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
    checksums: Dict[str, str]

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


def checksums_of(response: http.client.HTTPResponse) -> Dict[str, str]:
    """Base64, with -N where it is the checksum of the checksums of N parts."""
    found = {}
    for name in STORE_CHECKSUMS:
        value = response.getheader("x-amz-checksum-" + name)
        if value:
            found[name] = value.strip()
    return found


def checksum_headers(url: str) -> Dict[str, str]:
    """Stores tell checksums to who asks for them, and a URL must be signed for that."""
    signed = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query).get("X-Amz-SignedHeaders", [""])[0]
    return {"x-amz-checksum-mode": "ENABLED"} if "x-amz-checksum-mode" in signed.split(";") else {}


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
            if missing == "source_missing":
                raise Failed(missing, "The file does not exist any more. Put it back, or name another.") from None
            words = "The target's directory does not exist any more. Make it again and retry, or choose another."
            raise Failed(missing, words) from None
        if error.errno == errno.EROFS:
            words = "The file system is read-only there ({}). Retry when it can be written again, or choose another directory."
            raise Failed("permission_denied", words.format(what)) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP):
            by_end = {
                "source_missing": "You may not read the file any more ({}). Give yourself the right and retry.",
                "target_missing_directory": "You may not write in the target's directory any more ({}). Give yourself"
                " the right and retry, or choose another directory.",
            }
            said = by_end.get(missing, "The file system does not permit it ({}).").format(what)
            raise Failed("permission_denied", said) from None
        if error.errno in NO_ROOM:
            raise Failed("no_space", "There is no room for the file ({}). {}".format(what, room_advice(error))) from None
        raise Failed(
            "mover_error", "The file system failed ({}). Retry; tell its administrators if it stays.".format(what)
        ) from None


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def room_advice(error: OSError) -> str:
    if error.errno == errno.EDQUOT:
        return "Your quota there is used up: remove what you do not need and retry, or choose another directory."
    if error.errno == errno.EFBIG:
        return "Files of this size are not allowed there, by the file system or by a limit of yours: choose another directory."
    return "Free space there and retry, or choose another directory."


class Kernel:
    """Calls of Linux that not every Python offers. Where one is missing it raises OSError with ENOSYS."""

    def __init__(self) -> None:
        self._errno = lambda: errno.ENOSYS  # type: Callable[[], int]
        self._calls = {}  # type: Dict[str, Any]
        self._pointer = lambda value: None  # type: Callable[[Optional[int]], Any]
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            library = ctypes.CDLL(None, use_errno=True)
            number, size, offset = ctypes.c_int, ctypes.c_size_t, ctypes.c_int64
            self._errno = ctypes.get_errno
            self._pointer = lambda value: None if value is None else ctypes.byref(offset(value))
            for name, takes, gives in (
                ("fallocate", (number, number, offset, offset), number),
                ("splice", (number, ctypes.c_void_p, number, ctypes.c_void_p, size, ctypes.c_uint), ctypes.c_ssize_t),
                ("sync_file_range", (number, offset, offset, ctypes.c_uint), number),
            ):
                call = getattr(library, name)
                call.argtypes, call.restype = takes, gives
                self._calls[name] = call

    def fallocate(self, descriptor: int, size_bytes: int) -> None:
        self._call("fallocate", descriptor, 0, 0, size_bytes)

    def splice(self, source: int, sink: int, sink_offset: Optional[int], size_bytes: int) -> int:
        count = self._call("splice", source, None, sink, self._pointer(sink_offset), size_bytes, 1)
        return int(count)

    def can_splice(self) -> bool:
        return "splice" in self._calls

    def start_writing_back(self, descriptor: int) -> None:
        self._call("sync_file_range", descriptor, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE, of all the file

    def _call(self, name: str, *arguments: Any) -> Any:
        if name not in self._calls:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        while True:
            result = self._calls[name](*arguments)
            if result >= 0:
                return result
            number = self._errno()
            if number != errno.EINTR:
                raise OSError(number, os.strerror(number))


KERNEL = Kernel()


class Pipe:
    """A pipe through which bytes go from a socket to a file without being copied into this process."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.holds = 0
        with contextlib.suppress(OSError):  # users may have too many large pipes; a small one will do
            fcntl.fcntl(self.writer, 1031, PIPE_BYTES)  # F_SETPIPE_SZ

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


def reserve(descriptor: int, size_bytes: int) -> None:
    """Takes the room for the whole file before its first byte, or raises OSError.

    Not os.posix_fallocate: where the file system cannot do it the C library would write to every block
    instead, which takes hours over NFS. fallocate(2) says so honestly; the free space is asked for then. So it is
    in memory, where a reservation is no note on a disk but every page, and slows all that is written afterwards.
    """
    if not size_bytes:
        return
    try:
        if is_in_memory(descriptor):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        KERNEL.fallocate(descriptor, size_bytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV):
            raise
        room = os.fstatvfs(descriptor)
        if room.f_bavail * room.f_frsize + os.fstat(descriptor).st_blocks * 512 < size_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
    os.ftruncate(descriptor, size_bytes)


def current_umask() -> int:
    umask = None
    with contextlib.suppress(OSError, ValueError), open("/proc/self/status") as status:
        for row in status:
            if row.startswith("Umask:"):
                umask = int(row.split()[1], 8)
    if umask is None:  # asking the kernel means setting it; other threads shall err on the closed side meanwhile
        umask = os.umask(0o077)
        os.umask(umask)
    return umask


def is_in_memory(descriptor: int) -> bool:
    device = os.fstat(descriptor).st_dev
    number = "{}:{}".format(os.major(device), os.minor(device))
    with contextlib.suppress(OSError, ValueError), open("/proc/self/mountinfo", "rb") as mounts:
        for row in mounts:
            fields = row.decode("utf-8", "replace").split()
            if len(fields) > 2 and fields[2] == number:
                return fields[fields.index("-") + 1] in ("tmpfs", "ramfs")
    return False


def default_mode() -> int:
    return 0o666 & ~current_umask()


def leads_elsewhere(path: bytes, root: bytes, descriptor: int) -> bool:
    """Whether something below the root has become a symbolic link since the path was resolved, or it is not what is open.

    The root itself may be a link: nodes mount file systems where they like.
    """
    below = os.path.relpath(path, root)
    real_root = os.path.realpath(root)
    expected = real_root if below == b"." else os.path.join(real_root, below)
    return os.path.realpath(path) != expected or not os.path.samestat(os.fstat(descriptor), os.stat(expected))


def hidden_name(transfer_id: str) -> bytes:
    return ".stagecoach-{}.part".format(transfer_id).encode("ascii")


# Whatever the transfer: nobody's target is in another one's hidden folder, which its sender may be writing to.
HIDDEN_NAME = re.compile(rb"\.stagecoach-[0-9a-z]+\.part", re.IGNORECASE)


def require_no_detour(path: bytes, root: Optional[bytes], descriptor: int) -> None:
    """Of a source, which is open already."""
    if root is not None:
        with disk_errors("source_missing"):
            if leads_elsewhere(path, root, descriptor):
                raise Failed("source_missing", "The path was replaced by a symbolic link after the transfer began.")


class Place:
    """The directory that a node gives to transfers: tickets name what is below it by paths that begin there.

    Each step is opened in the directory before it, and no symbolic link is followed, so no path leads out of it,
    whatever is renamed meanwhile. The place itself may be a link: it is the node owner's word.
    """

    def __init__(self, directory: Union[str, bytes]) -> None:
        self._directory = os.fsencode(directory)

    def open_directory(self, path: bytes, missing: str, make: bool = False) -> int:
        """With `make`, what is missing on the way is made, and all of the way is durable. `missing` is as in disk_errors."""
        try:
            here = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            words = "The directory that the node keeps for transfers cannot be opened ({}). Tell the node's owner."
            raise Failed(missing, words.format(plain(error))) from None
        for name in filter(None, path.split(b"/")):
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, 0o777, dir_fd=here)
                    os.fsync(here)  # an earlier run may have made it and been cut off before it was durable
                below = self._open(name, os.O_RDONLY | os.O_DIRECTORY, here, missing)
            finally:
                os.close(here)
            here = below
        return here

    def open(self, path: bytes, flags: int, missing: str) -> int:
        parent, name = os.path.split(path)
        directory = self.open_directory(parent, missing)
        if not name:
            return directory
        try:
            return self._open(name, flags, directory, missing)
        finally:
            os.close(directory)

    def stat(self, path: bytes, missing: str) -> os.stat_result:
        """Of what stands there now, from the top."""
        parent, name = os.path.split(path)
        directory = self.open_directory(parent, missing)
        try:
            return os.stat(name or b".", dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)

    @staticmethod
    def _open(name: bytes, flags: int, directory: int, missing: str) -> int:
        try:
            return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                words = "{} is a symbolic link on the node: none is followed there. Name another path."
                if not stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                    words = "{} is no directory on the node. Name another path."
                raise Failed(missing, words.format(shown(name))) from None
            raise


class TargetFile:
    """The file being fetched, hidden beside its target until whole: the old target outlives any failure."""

    def __init__(self, path: bytes, transfer_id: str, root: Optional[bytes] = None, place: Optional[Place] = None) -> None:
        parent, self._name = os.path.split(path)
        if self._name in (b"", b".", b".."):
            raise Failed("target_is_directory", "The path names a directory, not a file.")
        if place is not None and any(HIDDEN_NAME.fullmatch(step) for step in path.split(b"/")):
            raise Failed("permission_denied", "The path leads into the hidden folder of a transfer. Name another path.")
        self._hidden = hidden_name(transfer_id)
        self._descriptor = -1
        self._place = place
        with disk_errors("target_missing_directory"):
            if place is None:
                self._directory = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            else:
                self._directory = place.open_directory(parent, "target_missing_directory", make=True)
        try:
            if place is None and root is not None and leads_elsewhere(parent, root, self._directory):
                raise Failed("target_missing_directory", "The target's directory was replaced after the transfer began.")
            self.old_mode()
        except BaseException:
            self.close()
            raise

    def old_mode(self) -> Optional[int]:
        with disk_errors("target_missing_directory"):
            try:
                found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                return None
        if stat.S_ISLNK(found.st_mode) and self._place is not None:
            # Perhaps the owner's way to another disk; and what it leads to is no sender's business.
            raise Failed("permission_denied", "A symbolic link stands at the path on the node; it is not replaced.")
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
                count = os.pwrite(self._descriptor, view[:WRITE_BYTES], offset)
                view, offset = view[count:], offset + count

    def write_from_pipe(self, pipe: Pipe, offset: int) -> None:
        """All that the pipe holds."""
        with disk_errors("target_missing_directory"):
            while pipe.holds:
                try:
                    count = KERNEL.splice(pipe.reader, self._descriptor, offset, min(pipe.holds, WRITE_BYTES))
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    data = os.read(pipe.reader, PIPE_BYTES)
                    self.write(memoryview(data), offset)
                    count = len(data)
                pipe.holds, offset = pipe.holds - count, offset + count

    def read(self, offset: int, size_bytes: int) -> bytes:
        with disk_errors("target_missing_directory"):
            return os.pread(self._descriptor, size_bytes, offset)

    def start_writing_back(self) -> None:
        """The disk begins now and not when everything is there. What goes wrong with it, syncing tells."""
        with contextlib.suppress(OSError):
            KERNEL.start_writing_back(self._descriptor)

    def sync_data(self) -> None:
        with disk_errors("target_missing_directory"):
            os.fdatasync(self._descriptor)

    def look_afresh(self) -> None:
        """What other nodes wrote and synced is read from now on: NFS clients forget their old pages at an open."""
        with disk_errors("target_missing_directory"):
            os.close(os.open(self._hidden, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._directory))

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
        super().__init__("another_mover", "Another mover is at work on this transfer.")


class SourceFile:
    """The file being put; it must stay as it was from the first look to the last."""

    def __init__(self, path: bytes, root: Optional[bytes] = None, place: Optional[Place] = None) -> None:
        self._path = path
        self._place = place
        flags = os.O_RDONLY | os.O_NONBLOCK  # a FIFO must not hang us
        with disk_errors("source_missing"):
            self._descriptor = os.open(path, flags) if place is None else place.open(path, flags, "source_missing")
        try:
            found = os.fstat(self._descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise Failed("source_missing", "The path does not name a regular file.")
            if place is None:
                require_no_detour(path, root, self._descriptor)
        except BaseException:
            self.close()
            raise
        self.identity = self._identity(found)
        self.size_bytes = found.st_size

    @staticmethod
    def _identity(found: os.stat_result) -> List[int]:
        return [found.st_size, found.st_mtime_ns, found.st_ino]

    def read(self, offset: int, size_bytes: int) -> bytes:
        with disk_errors("source_missing"):
            return os.pread(self._descriptor, size_bytes, offset)

    def read_into(self, view: memoryview, offset: int) -> memoryview:
        """What of the view was filled."""
        with disk_errors("source_missing"):
            if hasattr(os, "preadv"):  # novm: since Python 3.7, and not everywhere
                return view[: os.preadv(self._descriptor, [view], offset)]  # novm
            return memoryview(os.pread(self._descriptor, len(view), offset))

    def send(self, line: Line, offset: int, size_bytes: int) -> int:
        """Sends some of it straight from the system's cache; gives how much, never nothing."""
        try:
            count = line.send_file(self._descriptor, offset, min(size_bytes, BUFFER_BYTES))
        except OSError as error:
            if is_of_line(error):
                raise
            # The disk, or a file system whose files cannot be sent so: reading tells which.
            data = self.read(offset, min(size_bytes, SEND_BYTES))
            line.send(data)
            count = len(data)
        if not count:
            raise Failed("source_changed", "The file became shorter while it was being moved.")
        return count

    def check(self, as_it_was: Any) -> None:
        """Both the open file and its name: a new file may have been renamed over it."""
        now = []  # type: List[List[int]]
        with contextlib.suppress(OSError, Failed):
            place = self._place
            named = os.stat(self._path) if place is None else place.stat(self._path, "source_missing")
            now = [self._identity(os.fstat(self._descriptor)), self._identity(named)]
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

    def lock(self, name: str) -> int:
        """A descriptor that holds the lock for as long as it is open; -1 where nothing can be locked: some disks cannot.

        Raises AnotherMover when it is held elsewhere.
        """
        if self.directory is None:
            return -1
        descriptor = -1
        try:
            path = os.path.join(self.directory, name)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise AnotherMover() from None
        except OSError:
            if descriptor >= 0:
                os.close(descriptor)
            return -1
        return descriptor

    def journal_names(self) -> List[str]:
        """The journals of all tasks of earlier runs, the first task's first."""
        names = []  # type: List[str]
        if self.directory is not None:
            with contextlib.suppress(OSError):
                names = [name for name in os.listdir(self.directory) if re.match(r"journal(-[0-9]{1,3})?\.json\Z", name)]
        return sorted(names, key=lambda name: (len(name), name))

    def load_journal(self) -> Document:
        """All journals that agree in everything but their parts as one: the number of tasks may have changed since."""
        merged = {}  # type: Document
        for name in self.journal_names():
            journal = self.load(name)
            parts = journal.pop("parts", None)
            if not isinstance(parts, dict):
                continue
            merged = merged or {**journal, "parts": {}}
            if {**journal, "parts": merged["parts"]} == merged:
                merged["parts"].update(parts)
        return merged

    def forget_journals(self) -> None:
        for name in self.journal_names():
            self.forget(name)


# --- directories ----------------------------------------------------------------------------------


class Handle:
    """An open descriptor that closes when nobody holds it any more, be it a cache or a thread that reads."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self.descriptor)


class Recent:
    """The few things used last, by key; safe between threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._things = collections.OrderedDict()  # type: collections.OrderedDict[Any, Any]

    def get(self, key: Any) -> Any:
        with self._lock:
            if key not in self._things:
                return None
            self._things.move_to_end(key)
            return self._things[key]

    def keep(self, key: Any, thing: Any) -> None:
        with self._lock:
            self._things[key] = thing
            self._things.move_to_end(key)
            # What is left out is let go after the lock: its end may take a call to a slow file system.
            gone = self._things.popitem(last=False)[1] if len(self._things) > self._capacity else None
        del gone

    def clear(self) -> None:
        with self._lock:
            things, self._things = self._things, collections.OrderedDict()
        things.clear()


def shown(path: bytes) -> str:
    """A path from inside a tree for a message: one line, not long, and never a phrase of success."""
    text = path.decode("utf-8", "backslashreplace")
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    text = re.sub(r"(?i)successful", "<...>", text)
    return "'{}'".format(text if len(text) <= 200 else text[:100] + "..." + text[-90:])


def tree_failure(error: OSError, path: bytes, vanished: str) -> Failed:
    """An error of the file system at a path inside a tree; `vanished` is the code for a name not there (any more)."""
    what = plain(error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
        return Failed(vanished, "{} is not what it was a moment ago ({}).".format(shown(path), what))
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        words = "The file system does not permit access to {} ({}). Change what forbids it and retry."
        return Failed("permission_denied", words.format(shown(path), what))
    if error.errno in NO_ROOM:
        return Failed("no_space", "There is no room for {} ({}). {}".format(shown(path), what, room_advice(error)))
    return Failed("mover_error", "The file system failed at {} ({}).".format(shown(path), what))


class Entry(NamedTuple):
    """One member of a source tree. `parent` is the index of its directory; `kind` a tar type flag."""

    kind: bytes
    mode: int
    size: int
    seconds: int
    nanoseconds: int
    inode: int
    parent: int
    name: bytes
    target: bytes

    def packed(self) -> bytes:
        fixed = (self.kind, self.mode, self.size, self.seconds, self.nanoseconds, self.inode, self.parent, len(self.name))
        return ENTRY.pack(*fixed) + self.name + self.target

    @classmethod
    def unpacked(cls, record: bytes) -> "Entry":
        kind, mode, size, seconds, nanoseconds, inode, parent, length = ENTRY.unpack_from(record)
        name, target = record[ENTRY.size : ENTRY.size + length], record[ENTRY.size + length :]
        return cls(kind, mode, size, seconds, nanoseconds, inode, parent, name, target)


ENTRY = struct.Struct("<cIQqIQQI")


def nameless_file(directory: Optional[str]) -> IO[bytes]:
    """A file that is gone when it is closed: in the directory if that can be, else where the host keeps such files."""
    if directory is not None:
        with contextlib.suppress(OSError):
            return tempfile.TemporaryFile(dir=directory)
    return tempfile.TemporaryFile()


class Level:
    """A directory on the way down: its names still to come, the next one last."""

    def __init__(self, index: int, path: bytes, handle: Handle, found: os.stat_result) -> None:
        self.index = index
        self.path = path
        self.handle = handle  # type: Optional[Handle]
        self.same = (found.st_dev, found.st_ino)
        names = os.listdir(handle.descriptor)  # type: List[Any]
        for at, name in enumerate(names):  # in place: a directory may have a million names
            names[at] = os.fsencode(name)
        names.sort(reverse=True)
        self.names = names


def own_directories(state_directory: Optional[str]) -> Set[Tuple[int, int]]:
    """Device and inode of what is the transfer's own business, not the user's: jobs keep secret addresses there.

    A whole home directory may be moved, and the jobs' directories are in it. With this job's goes the one that
    holds them all when that is called as the service calls it.
    """
    own = set()  # type: Set[Tuple[int, int]]
    if state_directory is not None:
        here = os.path.realpath(state_directory)
        above = os.path.dirname(here)
        with contextlib.suppress(OSError):
            for path in [here, above] if os.path.basename(above) == ".stagecoach" else [here]:
                found = os.stat(path)
                own.add((found.st_dev, found.st_ino))
    return own


def walk_tree(root: Handle, breathe: Callable[[], None], left_out: Set[Tuple[int, int]]) -> Iterator[Tuple[bytes, Entry]]:
    """Path and entry of everything in a tree, as the stream has it: parents first, names sorted as bytes.

    Goes by open directories, never by whole paths: those may be longer than the system takes. Only the deepest
    few stay open; the way back up leads through `..`, and must come out where it came from.
    """
    try:
        found = os.fstat(root.descriptor)
        levels, count = [Level(0, b"", root, found)], 1
    except OSError as error:
        raise tree_failure(error, b".", "source_changed") from None
    yield b"./", entry_of(found, 0, b".", b"")
    while levels:
        level = levels[-1]
        if not level.names:
            levels.pop()
            if levels and levels[-1].handle is None:
                levels[-1].handle = back_up(level, levels[-1])
            continue
        breathe()
        name = level.names.pop()
        path = level.path + name
        try:
            here = level.handle.descriptor if level.handle else -1
            found = os.stat(name, dir_fd=here, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                if (found.st_dev, found.st_ino) in left_out:
                    continue
                handle = Handle(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here))
                opened = os.fstat(handle.descriptor)
                yield path + b"/", entry_of(opened, level.index, name, b"")
                levels.append(Level(count, path + b"/", handle, opened))
                if len(levels) > DIRECTORIES_OPEN:
                    levels[-DIRECTORIES_OPEN].handle = None
            elif stat.S_ISLNK(found.st_mode):
                yield path, entry_of(found, level.index, name, os.readlink(name, dir_fd=here))
            elif stat.S_ISREG(found.st_mode):
                yield path, entry_of(found, level.index, name, b"")
            else:
                raise Failed(
                    "source_special_file",
                    "{} is a socket, a pipe or a device; only files, directories and links can be moved.".format(shown(path)),
                )
        except OSError as error:
            raise tree_failure(error, path, "source_changed") from None
        count += 1


def back_up(level: Level, above: Level) -> Handle:
    try:
        handle = Handle(os.open(b"..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=level.handle.descriptor if level.handle else -1))
        found = os.fstat(handle.descriptor)
    except OSError as error:
        raise tree_failure(error, above.path, "source_changed") from None
    if (found.st_dev, found.st_ino) != above.same:
        raise Failed("source_changed", "{} was moved while the directory was read.".format(shown(level.path)))
    return handle


def entry_of(found: os.stat_result, parent: int, name: bytes, target: bytes) -> Entry:
    kind = b"5" if stat.S_ISDIR(found.st_mode) else b"2" if stat.S_ISLNK(found.st_mode) else b"0"
    seconds, nanoseconds = divmod(found.st_mtime_ns, 10**9)
    size = found.st_size if kind == b"0" else 0
    return Entry(kind, stat.S_IMODE(found.st_mode), size, seconds, nanoseconds, found.st_ino, parent, name, target)


# The standard library's headers differ from one Python to the next (mtime, device numbers). A stream must not: a
# run under another Python may go on with it, and the other end may have measured it.


def tar_header(path: bytes, entry: Entry) -> bytes:
    """The blocks before a member's content: a pax header for whatever does not fit, then the plain one."""
    records = []  # type: List[bytes]
    if entry.nanoseconds or not 0 <= entry.seconds < 8**11:
        whole = entry.seconds * 10**9 + entry.nanoseconds
        sign = b"-" if whole < 0 else b""
        records.append(pax_record(b"mtime", sign + b"%d.%09d" % divmod(abs(whole), 10**9)))
    for key, value in ((b"path", path), (b"linkpath", entry.target)):
        if len(value) > 100 or not is_ascii(value):
            records.append(pax_record(key, value))
    if entry.size >= 8**11:
        records.append(pax_record(b"size", b"%d" % entry.size))
    pax = b"".join(records)
    head = b""
    if pax:
        try:
            pax.decode("utf-8")
        except UnicodeDecodeError:
            pax = pax_record(b"hdrcharset", b"BINARY") + pax
        head = ustar_block(b"././@PaxHeader", b"x", 0o644, len(pax), 0, b"") + pax + bytes(-len(pax) % BLOCK_BYTES)
    seconds = entry.seconds if 0 <= entry.seconds < 8**11 else 0
    size = entry.size if entry.size < 8**11 else 0
    return head + ustar_block(path, entry.kind, entry.mode, size, seconds, entry.target)


def ustar_block(name: bytes, kind: bytes, mode: int, size: int, seconds: int, target: bytes) -> bytes:
    before = name[:100].ljust(100, b"\0") + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, 0, 0, size, seconds)
    after = kind + target[:100].ljust(100, b"\0") + b"ustar\00000" + bytes(64) + b"%07o\0%07o\0" % (0, 0) + bytes(167)
    return before + b"%06o\0 " % (sum(before) + 8 * ord(" ") + sum(after)) + after


def pax_record(key: bytes, value: bytes) -> bytes:
    """ "<length> <key>=<value>" and a newline, where the length counts its own digits too."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def is_ascii(value: bytes) -> bool:
    try:
        value.decode("ascii")
    except UnicodeDecodeError:
        return False
    return True


class SourceTree:
    """The directory being put, as if it were the file of its tar stream; it must stay as it was all the while.

    One walk makes a list of the members, kept in a nameless file: any stretch of the stream can be produced from
    it at any time by any thread, so parts go up side by side and are repeated and resumed as those of a file.
    """

    def __init__(
        self,
        path: bytes,
        state_directory: Optional[str],
        breathe: Callable[[], None] = lambda: None,
        limit_bytes: Optional[int] = None,
        root: Optional[bytes] = None,
        place: Optional[Place] = None,
    ) -> None:
        self._breathe = breathe
        self._limit_bytes = limit_bytes
        self._left_out = own_directories(state_directory)
        self._starts = array.array("Q")  # of the members in the stream
        self._records = array.array("Q")  # of the members in the list
        self._paths = Recent(256)
        self._directories = Recent(DIRECTORIES_OPEN)
        self._files = Recent(FILES_OPEN)
        self._end = 0  # of the last member
        self._read_since_walk = False
        self._spool = None  # type: Optional[IO[bytes]]
        self.identity = ""
        self.size_bytes = 0
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY
            self._root = Handle(os.open(path, flags) if place is None else place.open(path, flags, "source_missing"))
        except NotADirectoryError:
            raise Failed("source_missing", "The path does not name a directory.") from None
        except OSError as error:
            raise tree_failure(error, path, "source_missing") from None
        try:
            if place is None:
                require_no_detour(path, root, self._root.descriptor)
            with disk_errors("mover_error"):
                self._spool = nameless_file(state_directory)
            self._enlist()
        except BaseException:
            self.close()
            raise

    @property
    def entry_count(self) -> int:
        return len(self._starts)

    def read(self, offset: int, size_bytes: int) -> bytes:
        self._read_since_walk = True
        pieces = []  # type: List[bytes]
        end = min(offset + size_bytes, self.size_bytes)
        index = bisect.bisect_right(self._starts, offset) - 1
        while offset < min(end, self._end):
            start = self._starts[index]
            after = self._starts[index + 1] if index + 1 < len(self._starts) else self._end
            entry = self._entry(index)
            header = tar_header(self._member_path(entry), entry)
            content, padding = start + len(header), start + len(header) + entry.size
            if offset < content:
                pieces.append(header[offset - start : end - start])
                offset += len(pieces[-1])
            while content <= offset < min(padding, end):
                pieces.append(self._content(index, entry, offset - content, min(padding, end) - offset))
                offset += len(pieces[-1])
            if padding <= offset < end:
                pieces.append(bytes(min(after, end) - offset))
                offset = min(after, end)
            index += 1
        pieces.append(bytes(max(0, end - offset)))  # the end of the archive
        return b"".join(pieces)

    def read_into(self, view: memoryview, offset: int) -> memoryview:
        """What SourceFile's gives; the view is only as large as what shall be read."""
        return memoryview(self.read(offset, len(view)))

    def check(self, as_it_was: Any) -> None:
        """Walks again, unless nothing was read since the last walk."""
        if as_it_was != self.identity or (self._read_since_walk and self._walk_again() != self.identity):
            raise Failed("source_changed", "The directory changed while it was being moved; it was not uploaded.")
        self._read_since_walk = False

    def close(self) -> None:
        for cache in (self._files, self._directories, self._paths):
            cache.clear()
        if self._spool is not None:
            with contextlib.suppress(OSError):
                self._spool.close()

    def _enlist(self) -> None:
        spool = self._the_spool()
        digest = hashlib.sha256()
        at = 0
        for path, entry in walk_tree(self._root, self._breathe, self._left_out):
            record = entry.packed()
            digest.update(b"%d " % len(record) + record)
            self._records.append(at)
            self._starts.append(self._end)
            with disk_errors("mover_error"):
                spool.write(record)
            at += len(record)
            self._end += len(tar_header(path, entry)) + entry.size + -entry.size % BLOCK_BYTES
            if self._limit_bytes is not None and self._end > self._limit_bytes:
                raise self._too_large()
        self._records.append(at)
        with disk_errors("mover_error"):
            spool.flush()
        self.size_bytes = self._end + 2 * BLOCK_BYTES
        self.size_bytes += -self.size_bytes % RECORD_BYTES
        if self._limit_bytes is not None and self.size_bytes > self._limit_bytes:
            raise self._too_large()
        self.identity = digest.hexdigest()

    def _too_large(self) -> Failed:
        return Failed(
            "size_refused", "The directory is larger than the {} bytes that may be moved at once.".format(self._limit_bytes)
        )

    def _walk_again(self) -> str:
        digest = hashlib.sha256()
        for _, entry in walk_tree(self._root, self._breathe, self._left_out):
            record = entry.packed()
            digest.update(b"%d " % len(record) + record)
        return digest.hexdigest()

    def _the_spool(self) -> IO[bytes]:
        if self._spool is None:
            raise Failed("mover_error", "The list of the directory is not open.")
        return self._spool

    def _entry(self, index: int) -> Entry:
        at, end = self._records[index], self._records[index + 1]
        with disk_errors("mover_error"):
            return Entry.unpacked(os.pread(self._the_spool().fileno(), end - at, at))

    def _member_path(self, entry: Entry) -> bytes:
        """The member's name in the stream."""
        if entry.kind != b"5":
            return self._directory_path(entry.parent) + entry.name
        return self._directory_path(entry.parent) + entry.name + b"/"

    def _directory_path(self, index: int) -> bytes:
        """With a slash at its end; empty for the root."""
        below = []  # type: List[Tuple[int, bytes]]
        path = b""
        while index:
            known = self._paths.get(index)
            if known is not None:
                path = known
                break
            entry = self._entry(index)
            below.append((index, entry.name))
            index = entry.parent
        for index, name in reversed(below):
            path += name + b"/"
            self._paths.keep(index, path)
        return path

    def _directory(self, index: int) -> Handle:
        below = []  # type: List[Tuple[int, Entry]]
        handle = self._root
        while index:
            known = self._directories.get(index)
            if known is not None:
                handle = known
                break
            below.append((index, self._entry(index)))
            index = below[-1][1].parent
        for index, entry in reversed(below):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            handle = Handle(os.open(entry.name, flags, dir_fd=handle.descriptor))
            if os.fstat(handle.descriptor).st_ino != entry.inode:
                raise Failed("source_changed", "{} was replaced while it was moved.".format(shown(self._directory_path(index))))
            self._directories.keep(index, handle)
        return handle

    def _content(self, index: int, entry: Entry, offset: int, size_bytes: int) -> bytes:
        try:
            handle = self._files.get(index)
            if handle is None:
                handle = self._open_file(entry)
                if offset + size_bytes < entry.size:
                    self._files.keep(index, handle)
            data = os.pread(handle.descriptor, size_bytes, offset)
        except OSError as error:
            raise tree_failure(error, self._member_path(entry), "source_changed") from None
        if not data:
            raise self._changed(entry)
        return data

    def _open_file(self, entry: Entry) -> Handle:
        directory = self._directory(entry.parent)
        # Without O_NONBLOCK a pipe that took the file's place would hang us.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        handle = Handle(os.open(entry.name, flags, dir_fd=directory.descriptor))
        if entry_of(os.fstat(handle.descriptor), entry.parent, entry.name, b"")._replace(mode=entry.mode) != entry:
            raise self._changed(entry)
        return handle

    def _changed(self, entry: Entry) -> Failed:
        return Failed("source_changed", "{} changed while it was being moved.".format(shown(self._member_path(entry))))


def measure_tree(path: Union[str, bytes], state_directory: Optional[str] = None) -> Document:
    """What a directory will be as one object: `size_bytes` of its stream, `entry_count`, and an `identity`.

    The identity is another when anything in the directory is. Raises Failed.
    """
    with contextlib.closing(SourceTree(os.fsencode(path), state_directory)) as tree:
        return {"size_bytes": tree.size_bytes, "identity": tree.identity, "entry_count": tree.entry_count}


class Member(NamedTuple):
    """What a tar stream says of one thing: `kind` is its type flag."""

    name: bytes
    kind: bytes
    mode: int
    size: int
    mtime_ns: int
    target: bytes


class TarReader:
    """Reads the members of a tar stream (ustar, pax, GNU), strictly: what is doubtful is no tar.

    The standard library's reader takes a spoiled header in the middle for the end of the archive and any announced
    length of a pax header into memory, so only its understanding of one block is made use of here.
    """

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream
        self.for_all = {}  # type: Dict[bytes, bytes]

    def next(self) -> Optional[Member]:
        """The next member, its content then being next in the stream; None at the end of the archive."""
        extended = {}  # type: Dict[bytes, bytes]
        due = False  # after what only says something of a member to come
        while True:
            block = self._stream.exactly(BLOCK_BYTES)
            if block == ZERO_BLOCK:
                if due or self._stream.exactly(BLOCK_BYTES) != ZERO_BLOCK:
                    raise unreadable("a block of zeros stands between its members")
                return None
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError):
                raise self._garbage(block) from None
            due = due or info.type in (b"x", b"L", b"K")
            if info.type == b"x":
                extended.update(self._pax_records(info.size))
            elif info.type == b"g":
                self.for_all.update(self._pax_records(info.size))
            elif info.type in (b"L", b"K"):
                name = self._extension(info.size).split(b"\0", 1)[0]
                extended[b"path" if info.type == b"L" else b"linkpath"] = name
            else:
                return self._member(info, {**self.for_all, **extended})

    def _member(self, info: tarfile.TarInfo, said: Dict[bytes, bytes]) -> Member:
        if b"GNU.sparse" in said:
            raise unsafe(encoded(info.name), "is a sparse file of GNU tar's own kind")
        kind = b"0" if info.type in (b"\0", b"7") else info.type
        size = info.size
        if b"size" in said:
            if not re.match(rb"[0-9]{1,19}\Z", said[b"size"]):
                raise unreadable("a size is not a number")
            size = int(said[b"size"])
        if kind != b"0":
            size = 0  # some writers repeat the size of a link's file, and none of them its content
        if not 0 <= size <= self._stream.size_bytes - self._stream.position:
            raise unreadable("a member is larger than what is left of it")
        mtime_ns = parse_seconds(said[b"mtime"]) if b"mtime" in said else int(info.mtime) * 10**9
        if abs(mtime_ns) >= 2**63:
            raise unreadable("a time is not one")
        name = said.get(b"path", encoded(info.name))
        return Member(name, kind, info.mode, size, mtime_ns, said.get(b"linkpath", encoded(info.linkname)))

    def _extension(self, size_bytes: int) -> bytes:
        if not 0 <= size_bytes <= LARGEST_TAR_EXTENSION_BYTES:
            raise unreadable("a header is too long")
        data = self._stream.exactly(size_bytes)
        self._stream.exactly(-size_bytes % BLOCK_BYTES)
        return data

    def _pax_records(self, size_bytes: int) -> Dict[bytes, bytes]:
        data = self._extension(size_bytes)
        records = {}  # type: Dict[bytes, bytes]
        at = 0
        while at < len(data):
            found = re.compile(rb"([1-9][0-9]{0,6}) ").match(data, at)
            end = at + int(found.group(1)) if found else 0
            key, equals, value = data[found.end() if found else at : end - 1].partition(b"=")
            if not equals or not key or data[end - 1 : end] != b"\n" or end > len(data):
                raise unreadable("a pax record is spoiled")
            if key.startswith(b"GNU.sparse."):
                records[b"GNU.sparse"] = value
            elif key in (b"path", b"linkpath", b"size", b"mtime"):
                records[key] = value
            at = end
        return records

    def _garbage(self, block: bytes) -> Failed:
        if self._stream.position == BLOCK_BYTES and block[:2] == b"\x1f\x8b":
            return unreadable("it is compressed with gzip; only plain tar is unpacked")
        return unreadable("there is no header where one should be")


def parse_seconds(value: bytes) -> int:
    """Nanoseconds of a decimal number of seconds, exactly; what is finer is cut off."""
    found = re.match(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?\Z", value)
    if found is None:
        raise unreadable("a time is not a number")
    whole = int(found.group(2)) * 10**9 + int((found.group(3) or b"")[:9].ljust(9, b"0"))
    return -whole if found.group(1) else whole


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def unreadable(why: str) -> Failed:
    return Failed("archive_unreadable", "The object is not a whole tar archive: {}.".format(why))


def unsafe(name: bytes, why: str) -> Failed:
    return Failed("archive_unsafe", "The archive was refused: {} {}.".format(shown(name), why))


class TargetTree(TargetFile):
    """The directory being fetched, hidden beside its target until whole. Nothing in it is ever followed.

    Every name is reached from the hidden directory one component at a time, and whatever is not a directory on the
    way ends the transfer: not even an archive that was made to do harm gets a byte outside. Until the end all
    directories are the owner's alone (0700), for their own modes might lock us out; those wait in a list.
    """

    def __init__(
        self,
        path: bytes,
        transfer_id: str,
        root: Optional[bytes],
        state_directory: Optional[str],
        place: Optional[Place] = None,
    ) -> None:
        self._path = path
        self._state_directory = state_directory
        self._umask = current_umask()
        self._handles = Recent(DIRECTORIES_OPEN)
        self._notes = None  # type: Optional[IO[bytes]]
        self.root_note = (None, None)  # type: Tuple[Optional[int], Optional[int]]
        self.before_replacing = lambda: None  # type: Callable[[], None]
        super().__init__(path.rstrip(b"/") or b"/", transfer_id, root, place)

    def old_mode(self) -> Optional[int]:
        return None  # whatever stands at the path, its mode is not ours to take over; see require_free

    def require_free(self) -> None:
        """A friendly early word; the rename at the end is what really keeps us from overwriting."""
        with disk_errors("target_missing_directory"):
            try:
                found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            except FileNotFoundError:
                return
        if stat.S_ISDIR(found.st_mode) and self._is_empty():
            return
        raise self._target_exists()

    def _is_empty(self) -> bool:
        with contextlib.suppress(OSError):
            if self._place is not None:
                there = Handle(os.open(self._name, DIRECTORY_FLAGS, dir_fd=self._directory))
                return not os.listdir(there.descriptor)
            with os.scandir(self._path) as entries:
                return next(entries, None) is None
        return False

    @staticmethod
    def _target_exists() -> Failed:
        return Failed("target_exists", "Something stands at the path; a directory goes only where nothing is, or an empty one.")

    def has_size(self, size_bytes: int) -> bool:
        return self.placed_inode() is not None

    def placed_inode(self) -> Optional[int]:
        with contextlib.suppress(OSError):
            found = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
            return found.st_ino if stat.S_ISDIR(found.st_mode) else None
        return None

    def reopen(self, inode: Any, size_bytes: int) -> bool:
        """True when the hidden directory of an earlier run is still there, is ours, and is the one of that inode."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):
            found = os.stat(self._hidden, dir_fd=self._directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                return False
            # Its own mode may have been set, and lock us out.
            os.chmod(self._hidden, 0o700 | (found.st_mode & stat.S_ISGID), dir_fd=self._directory)
            self._descriptor = os.open(self._hidden, DIRECTORY_FLAGS, dir_fd=self._directory)
            self._lock()
            return bool(inode == self.inode())
        return False

    def create(self, size_bytes: int) -> None:
        self._handles.clear()
        self.reopen(None, 0)  # raises if another mover holds it
        with disk_errors("target_missing_directory"):
            remove_tree(self._directory, self._hidden)
            os.mkdir(self._hidden, 0o700, dir_fd=self._directory)
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = os.open(self._hidden, DIRECTORY_FLAGS, dir_fd=self._directory)
        self._lock()
        self.open_notes(0)

    def open_notes(self, length: int) -> bool:
        """The list of what directories are to become; its first bytes may be an earlier run's."""
        with disk_errors("mover_error"):
            if self._notes is not None:
                self._notes.close()
            self._notes = None
            if self._state_directory is not None:
                flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
                with contextlib.suppress(OSError):
                    self._notes = os.fdopen(os.open(os.path.join(self._state_directory, NOTES_NAME), flags, 0o600), "r+b")
            if self._notes is None:
                self._notes = nameless_file(None)
            if os.fstat(self._notes.fileno()).st_size < length:
                return False
            self._notes.truncate(length)
            self._notes.seek(length)
        return True

    def notes_length(self) -> int:
        return self._the_notes().tell()

    def _the_notes(self) -> IO[bytes]:
        if self._notes is None:
            raise Failed("mover_error", "The list of directories is not open.")
        return self._notes

    def sync(self) -> None:
        """Afterwards all that was written so far outlives a power cut."""
        with disk_errors("mover_error"):
            self._the_notes().flush()
            os.fsync(self._the_notes().fileno())
        with disk_errors("target_missing_directory"):
            sync_file_system(self._descriptor)

    def make(self, member: Member, stream: "Stream", mark: Callable[[int], None] = lambda offset: None) -> None:
        """Puts one member into the tree; `mark` is told how much of its content is written."""
        # The standard library's writer calls the root "/" when told to leave out its name.
        names = components(member.name if member.name or member.kind != b"5" else b".")
        try:
            if self._place is not None and names and HIDDEN_NAME.fullmatch(names[0]):
                raise unsafe(member.name, "has the name of a transfer's hidden file")
            if member.kind == b"5":
                self._make_directory(names, member)
            elif not names:
                raise unsafe(member.name, "would take the place of the directory itself")
            elif member.kind == b"0":
                self._make_file(names, member, stream, mark)
            elif member.kind == b"1":
                self._make_hard_link(names, member)
            elif member.kind == b"2":
                self._make_symlink(names, member)
            else:
                kinds = {b"3": "a device", b"4": "a device", b"6": "a pipe", b"S": "a sparse file of GNU tar's own kind"}
                raise unsafe(member.name, "is {}".format(kinds.get(member.kind, "of a kind that is not unpacked")))
        except OSError as error:
            raise self._refused(error, member.name) from None

    def go_on(self, member: Member, offset: int, stream: "Stream", mark: Callable[[int], None]) -> bool:
        """Writes the rest of a file that an earlier run began; False when its beginning is not there."""
        names = components(member.name)
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            directory = self._directory_at(names[:-1], make=False)
            if not stat.S_ISREG(os.stat(names[-1], dir_fd=directory.descriptor, follow_symlinks=False).st_mode):
                return False
            os.chmod(names[-1], 0o600, dir_fd=directory.descriptor)  # the earlier run may have come to its end
            descriptor = os.open(names[-1], flags, dir_fd=directory.descriptor)
        except OSError:
            return False
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_size < offset:
            os.close(descriptor)
            return False
        try:
            self._fill(descriptor, offset, member, stream, mark)
        except OSError as error:
            raise self._refused(error, member.name) from None
        return True

    @staticmethod
    def _refused(error: OSError, name: bytes) -> Failed:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            return unsafe(name, "leads through something that is not a directory")
        if error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            return unsafe(name, "cannot have that name on this file system ({})".format(plain(error)))
        return tree_failure(error, name, "target_missing_directory")

    def _make_directory(self, names: List[bytes], member: Member) -> None:
        if names:
            directory = self._directory_at(names[:-1])
            try:
                os.mkdir(names[-1], 0o700, dir_fd=directory.descriptor)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(names[-1], dir_fd=directory.descriptor, follow_symlinks=False).st_mode):
                    self.before_replacing()
                    os.unlink(names[-1], dir_fd=directory.descriptor)
                    os.mkdir(names[-1], 0o700, dir_fd=directory.descriptor)
        self._note(names, member.mode & 0o1777, member.mtime_ns)

    def _make_file(self, names: List[bytes], member: Member, stream: "Stream", mark: Callable[[int], None]) -> None:
        directory = self._directory_at(names[:-1])
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = self._in_place(names, lambda: os.open(names[-1], flags, 0o600, dir_fd=directory.descriptor))
        self._fill(descriptor, 0, member, stream, mark)

    def _fill(self, descriptor: int, offset: int, member: Member, stream: "Stream", mark: Callable[[int], None]) -> None:
        try:
            if not offset and member.size >= RESERVED_FROM_BYTES:
                reserve(descriptor, member.size)
            os.lseek(descriptor, offset, os.SEEK_SET)
            while offset < member.size:
                view = stream.some(member.size - offset)
                while len(view):
                    count = os.write(descriptor, view)
                    view, offset = view[count:], offset + count
                if offset < member.size:
                    mark(offset)
            os.fchmod(descriptor, member.mode & 0o777)
            os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(descriptor)
        stream.exactly(-member.size % BLOCK_BYTES)

    def _make_hard_link(self, names: List[bytes], member: Member) -> None:
        source = components(member.target)
        if not self._is_file(source):
            raise unsafe(member.name, "is a link to something that is not an earlier file of the archive")
        if source == names:
            return
        one, other = self._directory_at(source[:-1], make=False), self._directory_at(names[:-1])
        ends = {"src_dir_fd": one.descriptor, "dst_dir_fd": other.descriptor}
        self._in_place(names, lambda: os.link(source[-1], names[-1], follow_symlinks=False, **ends))

    def _is_file(self, names: List[bytes]) -> bool:
        with contextlib.suppress(FileNotFoundError):
            if names:
                directory = self._directory_at(names[:-1], make=False)
                return stat.S_ISREG(os.stat(names[-1], dir_fd=directory.descriptor, follow_symlinks=False).st_mode)
        return False

    def _make_symlink(self, names: List[bytes], member: Member) -> None:
        if not member.target or b"\0" in member.target:
            raise unsafe(member.name, "is a link to nowhere")
        directory = self._directory_at(names[:-1])
        self._in_place(names, lambda: os.symlink(member.target, names[-1], dir_fd=directory.descriptor))
        with contextlib.suppress(NotImplementedError):
            os.utime(names[-1], ns=(member.mtime_ns, member.mtime_ns), dir_fd=directory.descriptor, follow_symlinks=False)

    def _in_place(self, names: List[bytes], make: Callable[[], T]) -> T:
        """Makes something; what stands there already makes room, unless it is a directory."""
        try:
            return make()
        except FileExistsError:
            directory = self._directory_at(names[:-1])
            if stat.S_ISDIR(os.stat(names[-1], dir_fd=directory.descriptor, follow_symlinks=False).st_mode):
                raise unsafe(b"/".join(names), "would take the place of a directory") from None
            self.before_replacing()
            os.unlink(names[-1], dir_fd=directory.descriptor)
            return make()

    def _directory_at(self, names: List[bytes], make: bool = True) -> Handle:
        at = len(names)
        handle = None  # type: Optional[Handle]
        while handle is None and at:
            handle = self._handles.get(b"/".join(names[:at]))
            at -= handle is None
        if handle is None:
            # Opened anew: a duplicate would share, and hold on to, the lock.
            handle = self._handles.get(b"") or Handle(os.open(b".", DIRECTORY_FLAGS, dir_fd=self._descriptor))
            self._handles.keep(b"", handle)
        for depth in range(at + 1, len(names) + 1):
            name = names[depth - 1]
            try:
                handle = open_whatever_its_mode(handle.descriptor, name)  # an earlier run may have settled it
            except FileNotFoundError:
                if not make:
                    raise
                # The mode it will keep: an interruption may cost the note, and no member will bring it back.
                os.mkdir(name, 0o700 | (0o777 & ~self._umask), dir_fd=handle.descriptor)
                self._note(names[:depth], None, None)
                handle = Handle(os.open(name, DIRECTORY_FLAGS, dir_fd=handle.descriptor))
            self._handles.keep(b"/".join(names[:depth]), handle)
        return handle

    def _note(self, names: List[bytes], mode: Optional[int], mtime_ns: Optional[int]) -> None:
        path = b"/".join(names)
        fixed = (len(path), len(names), -1 if mode is None else mode, mtime_ns is not None, mtime_ns or 0)
        self._the_notes().write(NOTE.pack(*fixed) + path)

    def settle(self, breathe: Callable[[], None]) -> None:
        """Gives the directories their modes and times: the deepest first, since a mode may bar the way."""
        notes = self._the_notes()
        starts, depths = array.array("Q"), array.array("I")
        at, end = 0, notes.tell()
        notes.flush()
        while at < end:
            length, depth = NOTE.unpack(os.pread(notes.fileno(), NOTE.size, at))[:2]
            starts.append(at)
            depths.append(depth)
            at += NOTE.size + length
        for index in sorted(range(len(starts)), key=lambda one: -depths[one]):
            breathe()
            length, depth, mode, timed, mtime_ns = NOTE.unpack(os.pread(notes.fileno(), NOTE.size, starts[index]))
            path = os.pread(notes.fileno(), length, starts[index] + NOTE.size)
            note = (None if mode < 0 else mode, mtime_ns if timed else None)
            if not depth:
                self.root_note = note
                continue
            try:
                self._settle_one(path.split(b"/"), *note)
            except OSError as error:
                raise self._refused(error, path) from None

    def _settle_one(self, names: List[bytes], mode: Optional[int], mtime_ns: Optional[int]) -> None:
        directory = self._directory_at(names[:-1], make=False)
        found = os.stat(names[-1], dir_fd=directory.descriptor, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.chmod(names[-1], self._final_mode(mode, found), dir_fd=directory.descriptor)
            if mtime_ns is not None:
                os.utime(names[-1], ns=(mtime_ns, mtime_ns), dir_fd=directory.descriptor, follow_symlinks=False)

    def _final_mode(self, mode: Optional[int], found: os.stat_result) -> int:
        # The group a directory hands down is its place's affair, not the archive's.
        return (0o777 & ~self._umask if mode is None else mode) | (found.st_mode & stat.S_ISGID)

    def place(self) -> None:
        """Everything is unpacked, verified, settled and synced: let it take the target's name."""
        mode, mtime_ns = self.root_note
        with disk_errors("target_missing_directory"):
            os.fchmod(self._descriptor, self._final_mode(mode, os.fstat(self._descriptor)))
            if mtime_ns is not None:
                os.utime(self._descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(self._descriptor)
            if not self._is_the_hidden_one():
                raise AnotherMover()
            try:  # over an empty directory at the most: the system refuses anything else
                os.rename(self._hidden, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                    raise self._target_exists() from None
                raise
            os.fsync(self._directory)

    def remove(self) -> None:
        with contextlib.suppress(OSError, AnotherMover):
            if self._descriptor < 0:
                self.reopen(None, 0)
            # Another directory by our hidden name would be some other mover's, where locks do not work.
            if self._descriptor < 0 or self._is_the_hidden_one():
                self.forget_notes()
                remove_tree(self._directory, self._hidden)

    def _is_the_hidden_one(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self._hidden, dir_fd=self._directory, follow_symlinks=False).st_ino == self.inode()
        return False

    def forget_notes(self) -> None:
        if self._state_directory is not None:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._state_directory, NOTES_NAME))

    def close(self) -> None:
        self._handles.clear()
        if self._notes is not None:
            with contextlib.suppress(OSError):
                self._notes.close()
        super().close()


NOTE = struct.Struct("<IIi?q")  # length of the path, depth, mode or -1, whether a time follows, mtime in nanoseconds
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def components(name: bytes) -> List[bytes]:
    """The steps from the root of the tree to a member, or `archive_unsafe`."""
    if not name or name.startswith(b"/") or b"\0" in name or len(name) > LONGEST_MEMBER_NAME_BYTES:
        raise unsafe(name, "has no name that can be used")
    names = [step for step in name.split(b"/") if step not in (b"", b".")]
    if b".." in names:
        raise unsafe(name, "leads out of the directory")
    if len(names) > MOST_LEVELS:
        raise unsafe(name, "is too deep inside")
    return names


def sync_file_system(descriptor: int) -> None:
    """Thousands of small files are synced faster by one call than by one for each."""
    try:
        import ctypes

        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):  # not Linux
        os.sync()
        return
    if syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def remove_tree(parent: int, name: bytes) -> None:
    """Removes whatever stands there, of any depth and whatever the modes, following nothing; raises OSError.

    Directories are pulled up into the topmost one and emptied there, so that no path gets long and only two
    directories are ever open.
    """
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
    except FileNotFoundError:
        return
    top = open_whatever_its_mode(parent, name)
    pending = [os.fsencode(entry) for entry in os.listdir(top.descriptor)]
    pulled = 0
    while pending:
        entry = pending.pop()
        if removed_unless_directory(top.descriptor, entry):
            continue
        inner = open_whatever_its_mode(top.descriptor, entry)
        for below in os.listdir(inner.descriptor):
            if removed_unless_directory(inner.descriptor, os.fsencode(below)):
                continue
            os.chmod(below, 0o700, dir_fd=inner.descriptor)
            while True:
                pulled += 1
                place = b".stagecoach-%d" % pulled
                try:
                    os.rename(below, place, src_dir_fd=inner.descriptor, dst_dir_fd=top.descriptor)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                        raise
            pending.append(place)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(entry, dir_fd=top.descriptor)
    os.rmdir(name, dir_fd=parent)


def removed_unless_directory(parent: int, name: bytes) -> bool:
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return False
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    return True


def open_whatever_its_mode(parent: int, name: bytes) -> Handle:
    """A directory of ours, with its mode changed if it would bar the way."""
    try:
        handle = Handle(os.open(name, DIRECTORY_FLAGS, dir_fd=parent))
    except PermissionError:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise
        os.chmod(name, stat.S_IMODE(found.st_mode) | 0o700, dir_fd=parent)
        handle = Handle(os.open(name, DIRECTORY_FLAGS, dir_fd=parent))
    mode = stat.S_IMODE(os.fstat(handle.descriptor).st_mode)
    if mode & 0o700 != 0o700:
        os.fchmod(handle.descriptor, mode | 0o700)
    return handle


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

    def counts(self) -> Tuple[int, int, int, int]:
        with self._lock:
            return (self.bytes_moved, self.bytes_done, self.bytes_resumed, self.retries)

    def add(self, moved: int = 0, done: int = 0, resumed: int = 0, retries: int = 0) -> None:
        """What another task did."""
        with self._lock:
            self.bytes_moved += moved
            self.bytes_done += done
            self.bytes_resumed += resumed
            self.retries += retries

    def document(self, ticket: Any) -> Document:
        with self._lock:
            now = self._clock.monotonic()
            since, moved_then = self._samples[0]
            rate = (self.bytes_moved - moved_then) / (now - since) if now > since else 0.0
            self._samples.append((now, self.bytes_moved))
            return {
                "version": 1,
                "transfer_id": ticket.transfer_id,
                "attempt": ticket.attempt,
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
        self._has_no_room = False
        self._answer = None  # type: Any
        self.stuck = False

    def run(self, work: Callable[[Line], T], size: Callable[[], int], tick: Optional[Callable[[], None]] = None) -> T:
        """Runs `work` in so many threads, more when `size` grows, `tick` now and then in this one; gives an answer of `work`."""
        lines = []  # type: List[Line]
        threads = []  # type: List[threading.Thread]
        try:
            self._enlarge(work, size(), threads, lines)
            while any(thread.is_alive() for thread in threads) and not self._halt.is_set():
                for thread in threads:
                    if thread.is_alive():
                        thread.join(POLL_SECONDS)
                        break
                if self._stop.is_set():
                    break
                if tick is not None:
                    tick()
                self._enlarge(work, size(), threads, lines)
        finally:
            self._wind_up(threads, lines)
        if self._failure is not None:
            raise self._failure
        if self._was_halted or self.stuck:
            raise Failed("interrupted", "The mover was stopped before the transfer was complete; run it again.")
        answer = self._answer  # type: T
        return answer

    def _enlarge(self, work: Callable[[Line], T], size: int, threads: List[threading.Thread], lines: List[Line]) -> None:
        while len(threads) < size and not self._has_no_room:
            line = Line(self._road, self._clock, self._halt)
            thread = threading.Thread(target=self._one, args=(work, line), name="stagecoach-mover", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the host allows no more threads: fewer will do
                if not threads:
                    raise
                self._has_no_room = True
                return
            lines.append(line)
            threads.append(thread)

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


class PartSink:
    """A part on its way to the disk: how far it is written, and its digests so far."""

    def __init__(self, part: Part, target: TargetFile, names: Set[str], progress: Progress) -> None:
        self.done = 0
        self.hashes = bool(names)
        self._part = part
        self._target = target
        self._progress = progress
        self._running = {name: new_digest(name) for name in names}

    @property
    def left(self) -> int:
        return self._part.size - self.done

    @property
    def position(self) -> int:
        return self._part.offset + self.done

    def take(self, view: memoryview) -> None:
        self._target.write(view, self.position)
        for digest in self._running.values():
            digest.update(view)
        self._count(len(view))

    def take_pipe(self, pipe: Pipe) -> None:
        count = pipe.holds
        self._target.write_from_pipe(pipe, self.position)
        self._count(count)

    def digests(self) -> Dict[str, str]:
        return {name: digest.hexdigest() for name, digest in self._running.items()}

    def _count(self, count: int) -> None:
        self.done += count
        self._progress.moved(count)


class PartQueue:
    """Hands out the parts in ascending order: some stores keep what comes far out of order in memory."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._parts = iter(parts)
        self._lock = threading.Lock()

    def take(self) -> Optional[Part]:
        with self._lock:
            return next(self._parts, None)


class Pace:
    """How many connections are at work at once: what was asked for, or as many as still make it faster.

    Begins with as many as there are cores, two to eight, and doubles while the measured rate grows by a tenth or more and
    processor time is left; a doubling that brought nothing is taken back, and tried again after a while. More connections
    than cores have more to do with one another than with the bytes, unless it is the way that makes them wait.
    """

    def __init__(self, clock: Clock, asked: Optional[int], most: int) -> None:
        cores = usable_cores()
        self._clock = clock
        self._cores = cores
        self._is_fixed = asked is not None
        self.most = max(1, min(asked or MOST_CHOSEN_CONNECTIONS, MOST_CONNECTIONS, most))
        self.allowed = self.most if self._is_fixed else min(self.most, max(2, min(8, cores)))
        self._busy = 0
        self._turn = threading.Condition()
        self._best_rate = 0.0
        self._before = None  # type: Optional[int]
        self._looked = (clock.monotonic(), 0, processor_seconds(), idle_seconds())
        self._grow_at = clock.monotonic()

    def begin(self, line: Line) -> None:
        """Waits for a turn."""
        with self._turn:
            while self._busy >= self.allowed:
                self._turn.wait(POLL_SECONDS)
                line.check()
            self._busy += 1

    def end(self) -> None:
        with self._turn:
            self._busy -= 1
            self._turn.notify()

    def adapt(self, bytes_moved: int) -> None:
        """Called now and then with all bytes moved so far."""
        then, moved_then, spent_then, idle_then = self._looked
        now = self._clock.monotonic()
        if self._is_fixed or now - then < PACE_SECONDS:
            return
        spent, idle = processor_seconds(), idle_seconds()
        rate = (bytes_moved - moved_then) / (now - then)
        own, free = ((after - before) / (now - then) / self._cores for before, after in ((spent_then, spent), (idle_then, idle)))
        # A store, or others, on the same cores leave none as well; to who hardly needs one that does not matter.
        is_busy = own > 0.8 or (own > 0.1 and free < 0.1)
        self._looked = (now, bytes_moved, spent, idle)
        if not rate:
            return
        if self._before is not None and rate < 1.1 * self._best_rate:
            self.allowed, self._before = self._before, None
            self._grow_at = now + PACE_AGAIN_SECONDS
        elif now >= self._grow_at and not is_busy and self.allowed < self.most:
            self._best_rate, self._before = rate, self.allowed
            self.allowed = min(self.most, 2 * self.allowed)
        else:
            self._before = None


def usable_cores() -> int:
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 4


def processor_seconds() -> float:
    spent = os.times()
    return spent[0] + spent[1]


def idle_seconds() -> float:
    """For how long the cores that this process may use had nothing to do, each by itself; as the clock where nobody says."""
    with contextlib.suppress(AttributeError, OSError, ValueError, IndexError):
        usable = {"cpu{}".format(core) for core in os.sched_getaffinity(0)}
        with open(PROCESSOR_STATISTICS, encoding="ascii") as file:
            counts = [line.split() for line in file]
        ticks = [int(words[4]) + int(words[5]) for words in counts if words and words[0] in usable]
        if ticks:
            return sum(ticks) / os.sysconf("SC_CLK_TCK")
    return usable_cores() * time.monotonic()


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
        place: Optional[str] = None,
    ) -> None:
        self.clock = clock or Clock()
        self.place = None if place is None else Place(place)
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
        self.journal_name = "journal.json"

    def carry_out(self) -> Document:
        """The whole life of a ticket. Gives the receipt; a transfer that fails raises nothing."""
        started = self.clock.wall()
        code, message, is_second = None, "", False  # type: Optional[str], str, bool
        reporter = Reporter(self, self._on_progress)
        reporter.start()
        receipt = None  # type: Optional[Document]
        try:
            document = self.aside(lambda line: self.persist(line, lambda: self._read_ticket(line)))
            self.ticket = self.ticket_of(document)
            receipt = self.earlier_receipt()
            if receipt is None:
                self._run_resumably()
                message = "{} bytes were moved and verified ({}).".format(
                    self.ticket.size_bytes, ", ".join(proof["how"] for proof in self.proved)
                )
        except Failed as failure:
            code, message, is_second = failure.code, failure.message, isinstance(failure, AnotherMover)
        except Exception as error:
            traceback.print_tb(error.__traceback__)  # places in this file, never values
            code = "mover_error"
            message = "The mover failed: {} {}".format(type(error).__name__, redact(str(error))).strip()
        finally:
            if code is not None and not is_second:  # before a word to a store that may be what failed: the host may not wait
                self.state.save("receipt.json", self._receipt(code, message, started))
            if code == "interrupted":
                self.road.connecting_seconds = min(self.road.connecting_seconds, HURRIED_CONNECTING_SECONDS)
            reporter.end()
        if receipt is None:
            receipt = self._receipt(code, message, started)
        if is_second:
            self._leave_aside(receipt)
        else:
            self._hand_over(receipt)
        return receipt

    # What a kind of leg says for itself:

    def earlier_receipt(self) -> Optional[Document]:
        """The receipt of an earlier run, if that one already did all there is to do."""
        receipt = self.state.load("receipt.json")
        ticket = self.the_ticket()
        same = receipt.get("transfer_id") == ticket.transfer_id and receipt.get("kind") == self.kind
        same = same and (ticket.to_measure or receipt.get("size_bytes") == ticket.size_bytes)
        return receipt if same and receipt.get("ok") is True else None

    def run(self) -> None:
        raise NotImplementedError

    def journal(self) -> Document:
        raise NotImplementedError

    def share_out(self) -> Iterable[Part]:
        """The parts that this task moves itself; the others may begin with theirs."""
        return self.the_ticket().parts()

    def gather(self) -> None:
        """Waits until the parts of the other tasks are where they belong, and notes them as finished."""

    def do_without_others(self) -> None:
        """Whatever the other tasks say from now on is of no concern."""

    def give_up(self) -> None:
        """After a final failure: leave nothing behind."""

    def close(self) -> None:
        """Ends what `run` opened."""

    # What they share:

    def ticket_of(self, document: Any) -> Ticket:
        """The ticket of this document, if it means this kind of host."""
        ticket = Ticket(document, self.kind)
        if ticket.place is not None and self.place is None:
            raise Failed("ticket_unreadable", "The ticket is for a node, and this mover was given no --place there.")
        if ticket.place is None and self.place is not None:
            raise Failed("ticket_unreadable", "The ticket is for no node, so nothing is moved in this node's directories.")
        return ticket

    def the_ticket(self) -> Ticket:
        if self.ticket is None:
            raise Failed("ticket_unreadable", "There is no ticket.")
        return self.ticket

    @property
    def verify(self) -> bool:
        return self.the_ticket().verify if self._verify is None else self._verify

    def asked_connections(self) -> Optional[int]:
        return self._concurrency or self.the_ticket().concurrency

    def pace(self, queue: "PartQueue", work: Callable[[Line, Part], None]) -> None:
        """Has all parts of the queue worked on, by as many threads at once as is good."""
        ticket = self.the_ticket()
        pace = Pace(self.clock, self.asked_connections(), ticket.part_count)

        def work_on_parts(line: Line) -> None:
            while True:
                pace.begin(line)
                try:
                    part = queue.take()
                    if part is None:
                        return
                    work(line, part)
                finally:
                    pace.end()

        def tick() -> None:
            pace.adapt(self.progress.bytes_moved)
            self.save_if_due()

        self.crew(work_on_parts, lambda: pace.allowed, tick)

    def crew(self, work: Callable[[Line], T], size: Callable[[], int], tick: Optional[Callable[[], None]] = None) -> T:
        crew = Crew(self.road, self.clock, self.stop)
        try:
            return crew.run(work, size, tick)
        finally:
            self._stuck = self._stuck or crew.stuck

    def aside(self, work: Callable[[Line], T]) -> T:
        """Even a single request runs in a thread, so that this one always hears the word to stop."""
        return self.crew(work, lambda: 1)

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
                    self.clock.pause(line.asked_pause_seconds() + self.clock.jitter(ceiling), line.halt)
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
                    after = self.ticket_of(reload_ticket(line))
                    break
                except Trouble as trouble:
                    self.progress.retried()
                    if again == ATTEMPTS_PER_REQUEST - 1:
                        raise Failed(trouble.code, trouble.message) from None
                    self.clock.pause(self.clock.jitter(min(LONGEST_PAUSE_SECONDS, 2.0**again)), line.halt)
                    line.check()
            after.measure(before.size_bytes)
            if after.identity() != before.identity():
                raise Failed("ticket_unreadable", "The renewed ticket is of another transfer.")
            after.attempt = before.attempt  # it may have been written for a later job; this one stays what it was
            if after.urls() == before.urls():
                raise expired.as_failure()
            self.ticket = after
            self._renewals += 1

    def look(self, line: Line) -> ObjectSeen:
        """HEAD of the object."""

        def once() -> ObjectSeen:
            url = self.the_ticket().head_url
            # One store reads the whole object to answer this.
            response = line.ask("HEAD", url, checksum_headers(url), stall_seconds=5 * self.road.stall_seconds)
            body = line.read_all(response)
            if response.status != 200:
                raise refusal(response.status, body, url, self.clock.wall(), "object_missing")
            length = response.getheader("Content-Length") or ""
            if not re.match(r"[0-9]{1,19}\Z", length):
                raise Trouble("The store does not say how large the object is.", "store_refused")
            modified = response.getheader("Last-Modified")
            return ObjectSeen(int(length), etag_of(response), is_sealed(response), modified, checksums_of(response))

        return self.persist(line, once)

    def finish_part(self, part: Part, entry: Any) -> None:
        with self.finished_lock:
            self.finished[part.number] = entry

    def digest(
        self, line: Line, read: Callable[[int, int], bytes], offset: int, size_bytes: int, names: Set[str]
    ) -> Dict[str, str]:
        """Digests of a stretch of the file as it stands on the disk; shorter when the file is. Of no names: reads nothing."""
        if not names:
            return {}
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
            self.state.save(self.journal_name, document)
            self.saved_count = len(document["parts"])

    def _run_resumably(self) -> None:
        try:
            self.run()
        except Failed as failure:
            resumable = failure.code in GOES_ON_LATER
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

    def _receipt(self, code: Optional[str], message: str, started: float) -> Document:
        ticket = self.ticket
        return {
            "version": 1,
            "transfer_id": ticket.transfer_id if ticket else "",
            "attempt": ticket.attempt if ticket else 1,
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

    def _leave_aside(self, receipt: Document) -> None:
        """On the disk alone, and not in the place of a good one: the store's receipt is the other mover's, who may be done."""
        if self.state.load("receipt.json").get("ok") is not True:
            self.receipt_kept = self.state.save("receipt.json", receipt) or self.receipt_kept

    def _hand_over(self, receipt: Document) -> None:
        """First to the disk, then to the store; short of breath when the host wants us gone."""
        if self.state.save("receipt.json", receipt):
            self.receipt_kept = True
            if receipt["code"] is None:
                # Not before: who is killed in between is told by one of them that all is done, or what is.
                self.state.forget_journals()
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
    unpacking = None  # type: Optional[Unpacking]
    seen = ObjectSeen(0, None, False, None, {})
    _written_back_bytes = 0

    def earlier_receipt(self) -> Optional[Document]:
        receipt = super().earlier_receipt()
        if receipt is not None:
            ticket = self.the_ticket()
            with contextlib.closing(self._open_target(ticket)) as target:
                if target.has_size(ticket.size_bytes):
                    return receipt
        return None

    def _open_target(self, ticket: Ticket) -> TargetFile:
        if ticket.archive is not None:
            return TargetTree(ticket.path, ticket.transfer_id, ticket.root, self.state.directory, self.place)
        return TargetFile(ticket.path, ticket.transfer_id, ticket.root, self.place)

    def _note_target(self) -> None:
        """So that what is hidden there can be discarded without the ticket: nobody but this node finds it."""
        ticket = self.the_ticket()
        noted = {"version": 1, "transfer_id": ticket.transfer_id, "path_base64": base64.b64encode(ticket.path).decode("ascii")}
        if self.state.directory is not None and not self.state.save(TARGET_NAME, noted):
            raise Failed("no_space", "The node's state directory cannot be written. Tell the node's owner.")

    def run(self) -> None:
        ticket = self.the_ticket()
        if self.place is not None:
            self._note_target()
        if ticket.archive is not None:
            self.unpacking = Unpacking(self)
            self.unpacking.run()
            return
        self.target = self._open_target(ticket)
        self.progress.phase = "waiting" if ticket.wait_until is not None else "moving"
        self.seen = self.aside(self._await_object)
        journal = self.state.load_journal()
        if self._fits(journal) and self.target.reopen(journal.get("inode"), ticket.size_bytes):
            self.finished = {int(number): digests for number, digests in journal["parts"].items()}
        else:
            self.target.reopen(None, ticket.size_bytes)  # raises if another mover holds it: the journals are its own then
            self.state.forget_journals()  # the new file may be given the inode that they speak of
            self.target.create(ticket.size_bytes)
        try:
            self._fetch_all()
        except ObjectDiffers:
            # Perhaps the object was replaced meanwhile, or a proxy spoiled a part. Once more, from nothing.
            self.do_without_others()
            self.finished, self.proved, self.saved_count = {}, [], 0
            self.state.forget_journals()
            self.progress.start_over()
            self.seen = self.aside(self.look)
            try:
                self._fetch_all()
            except ObjectDiffers as error:
                raise Failed("digest_mismatch", str(error)) from None
        self.target.place()

    def save_if_due(self) -> None:
        moved_bytes = self.progress.bytes_moved
        if self.unpacking is None and moved_bytes - self._written_back_bytes >= WRITE_BACK_BYTES:
            self.the_target().start_writing_back()
            self._written_back_bytes = moved_bytes
        super().save_if_due()

    def save_journal(self) -> None:
        if self.unpacking is None:
            super().save_journal()
            return
        with self.unpacking.saving:
            super().save_journal()

    def journal(self) -> Document:
        if self.unpacking is not None:
            return self.unpacking.journal()
        with self.finished_lock:
            parts = {str(number): digests for number, digests in self.finished.items()}
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
        self.state.forget_journals()

    def close(self) -> None:
        if self.target is not None:
            self.target.close()

    def the_target(self) -> TargetFile:
        if self.target is None:
            raise Failed("mover_error", "The target is not open.")
        return self.target

    def part_md5s(self) -> List[str]:
        return [self.finished[number]["md5"] for number in range(1, self.the_ticket().part_count + 1)]

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
        if self.unpacking is not None:
            self.unpacking.move()
        else:
            queue = PartQueue(self.share_out())
            self.pace(queue, self._take_part)
        self.save_journal()
        self.gather()
        self.progress.phase = "verifying"
        self._verify_whole()

    def _take_part(self, line: Line, part: Part) -> None:
        if not self._still_good(line, part):
            self._fetch_part(line, part)

    def _still_good(self, line: Line, part: Part) -> bool:
        """A part of an earlier run counts only if the disk still gives back what was written."""
        if part.number not in self.finished:
            return False
        found = self.digest(line, self.the_target().read, part.offset, part.size, self.part_digest_names())
        if self.finished[part.number] != found:
            with self.finished_lock:
                del self.finished[part.number]
            return False
        self.progress.resumed(part.size)
        return True

    def _fetch_part(self, line: Line, part: Part) -> None:
        digests = self._received(line, part)
        if self.wrong_digest(part, digests) is not None:
            self.progress.undone(part.size)
            self.progress.retried()
            digests = self._received(line, part)
        wrong = self.wrong_digest(part, digests)
        if wrong is not None:
            raise Failed("digest_mismatch", "The {} of part {} is not the one that was announced.".format(wrong, part.number))
        self.finish_part(part, digests)

    def _received(self, line: Line, part: Part) -> Dict[str, str]:
        """The digests of the part, once all of it is written."""
        sink = PartSink(part, self.the_target(), self.part_digest_names(), self.progress)
        self.persist(line, lambda: self._receive(line, sink), lambda: sink.done)
        return sink.digests()

    def _receive(self, line: Line, sink: "PartSink") -> None:
        """Takes up where the attempt before broke off, digests and all."""
        if not sink.left:
            return
        response = self.ask_for(line, sink.position, sink.left)
        buffer = line.buffer()
        is_spliced = not sink.hashes and line.can_splice(response)
        ahead = line.read_ahead_bytes(response) if is_spliced else 0
        while sink.left:
            if is_spliced and not ahead and sink.left > 1:
                pipe = line.splice(response)
                is_spliced = bool(pipe.holds)
                sink.take_pipe(pipe)
            else:
                count = line.read_into(response, buffer[: ahead or sink.left])
                sink.take(buffer[:count])
                ahead -= min(ahead, count)

    def ask_for(self, line: Line, offset: int, size_bytes: int) -> http.client.HTTPResponse:
        """An answer whose body is just this stretch of the object."""
        first, last = offset, offset + size_bytes - 1
        url = self.the_ticket().get_url
        response = line.ask("GET", url, {"Range": "bytes={}-{}".format(first, last)})
        if response.status not in (200, 206):
            raise refusal(response.status, line.read_all(response), url, self.clock.wall(), "object_missing")
        if not self._is_range(response, first, last):
            said = line.read_all(response)
            if b"<Error" in said and b"<Code>" in said:  # as S3 itself does when it fails after it said 200
                raise refusal(500, said, url, self.clock.wall(), "object_missing")
            raise Trouble("The store sent another range than the one asked for.", "store_refused")
        return response

    def _is_range(self, response: http.client.HTTPResponse, first: int, last: int) -> bool:
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
        return right and (length is None or length.strip() == str(last - first + 1))

    def part_digest_names(self) -> Set[str]:
        ticket = self.the_ticket()
        names = {"md5"} if self._compares_with_the_store() else set()
        names.update(ticket.part_digests, {"crc32"} & set(ticket.digests))
        if self._compares_with_the_store():
            # A checksum of the whole needs those of the parts where it is one of parts, or can be put together from them.
            names.update(name for name, value in self.seen.checksums.items() if name == "crc32" or self._is_of_parts(value))
        return names

    def _compares_with_the_store(self) -> bool:
        """Not where the client has said what each part is: that tells more, and MD5 costs as much as all else together."""
        said = self.the_ticket().part_digests
        return self.verify and (not said or "md5" in said)

    def wrong_digest(self, part: Part, found: Dict[str, str]) -> Optional[str]:
        """The name of a digest that is not the one that the client gave for the part."""
        for name, said in self.the_ticket().part_digests.items():
            if found[name] != said[part.number - 1]:
                return name
        return None

    def _is_of_parts(self, checksum: str) -> bool:
        count = self.the_ticket().part_count
        return checksum.endswith("-{}".format(count)) or (count == 1 and "-" not in checksum)

    def _verify_whole(self) -> None:
        ticket = self.the_ticket()
        etags = self._telling_etags()
        plain_etags = {etag for etag in etags if is_md5(etag)}
        whole = self._whole_digests(self.whole_digest_names())
        self.prove("size", str(ticket.size_bytes))
        for etag in plain_etags:
            if etag != whole["md5"]:
                raise ObjectDiffers("The file's MD5 is not the one that the store gives for the object.")
            if "md5" not in ticket.digests:
                self.prove("md5", etag)
        for etag in etags:
            if has_parts(etag, ticket.part_count):
                if etag != multipart_etag(self.part_md5s()):
                    raise ObjectDiffers("The MD5s of the parts do not add up to the object's ETag.")
                self.prove("multipart_etag", etag)
        if self._compares_with_the_store():
            self._prove_store_checksums(whole)
        for name in sorted(ticket.part_digests):  # compared one by one when they arrived
            self.prove("part_" + name, "{} parts".format(ticket.part_count))
        self.prove_said_digests(whole)

    def whole_digest_names(self) -> Set[str]:
        ticket = self.the_ticket()
        names = set(ticket.digests)
        if any(is_md5(etag) for etag in self._telling_etags()):
            names.add("md5")
        if self._compares_with_the_store():
            names.update(name for name, value in self.seen.checksums.items() if "-" not in value)
        return names

    def _telling_etags(self) -> Set[str]:
        """Those that are made of MD5s and shall be compared."""
        if not self._compares_with_the_store() or self.seen.sealed:
            return set()
        return {etag for etag in (self.seen.etag, self.the_ticket().expected_etag) if etag}

    def _whole_digests(self, names: Set[str]) -> Dict[str, str]:
        """From those of the parts where that is possible; the others take another reading of the file."""
        ticket = self.the_ticket()
        whole = {name: digest for name, digest in self.finished[1].items() if ticket.part_count == 1}
        if "crc32" in names:
            whole["crc32"] = self._combined_crc32()
        left = names - set(whole)
        if self.unpacking is not None:
            whole.update(self.unpacking.whole)
        elif left:
            whole.update(self.aside(lambda line: self.digest(line, self.the_target().read, 0, ticket.size_bytes, left)))
        return whole

    def _combined_crc32(self) -> str:
        """Of the whole, from those of the parts."""
        ticket = self.the_ticket()
        whole, shifts = 0, {}  # type: int, Dict[int, int]
        for part in ticket.parts():
            if part.size not in shifts:
                shifts[part.size] = crc32_shift(part.size)
            whole = crc32_product(shifts[part.size], whole) ^ int(self.finished[part.number]["crc32"], 16)
        return "{:08x}".format(whole)

    def _prove_store_checksums(self, whole: Dict[str, str]) -> None:
        for name, said in sorted(self.seen.checksums.items()):
            if "-" not in said:
                found = base64.b64encode(binascii.unhexlify(whole[name])).decode()
            elif self._is_of_parts(said):
                of_parts = new_digest(name)
                for number in range(1, self.the_ticket().part_count + 1):
                    of_parts.update(binascii.unhexlify(self.finished[number][name]))
                digest = base64.b64encode(binascii.unhexlify(of_parts.hexdigest())).decode()
                found = "{}-{}".format(digest, self.the_ticket().part_count)
            else:
                continue
            if found != said:
                raise ObjectDiffers("The {} is not the one that the store gives for the object.".format(name))
            self.prove("store_" + name, said)


class Put(Leg):
    """File to object. The journal outlives a failure: a part sent twice can cost the whole upload."""

    kind = "put"
    source = None  # type: Union[SourceFile, SourceTree, None]
    lock = -1
    complete_instead = None  # type: Optional[Callable[[Optional[List[str]]], bool]]

    def run(self) -> None:
        ticket = self.the_ticket()
        self.lock = self.state.lock("put.lock")
        self.source = self._open_file() if ticket.archive is None else self.aside(self._open_tree)
        ticket.measure(self.source.size_bytes)
        if self.source.size_bytes != ticket.size_bytes:
            raise Failed(
                "source_changed",
                "The source has {} bytes where {} were announced: it was changed after the request."
                " Begin the download again.".format(self.source.size_bytes, ticket.size_bytes),
            )
        journal = self.state.load_journal()
        if ticket.to_measure and (journal.get("transfer_id"), journal.get("kind")) == (ticket.transfer_id, self.kind):
            self.source.check(journal.get("source"))  # another size would make another journal, and hide the change
        if all(journal.get(key) == value for key, value in self.journal_identity().items()):
            self.source.check(journal.get("source"))
            self._take_over(journal.get("parts"))
        queue = PartQueue(part for part in self.share_out() if part.number not in self.finished)
        self.pace(queue, self._send_part)
        self.save_journal()
        self.gather()
        self.progress.phase = "verifying"
        if ticket.digests:
            self.prove_said_digests(self.aside(lambda line: self._digest_source(line, set(ticket.digests))))
        self.aside(lambda line: self.the_source().check(self.the_source().identity))
        said = self.aside(self._complete)
        self._verify_object(said)

    def journal(self) -> Document:
        with self.finished_lock:
            parts = {str(number): entry for number, entry in self.finished.items()}
        return {"version": 1, "source": self.the_source().identity, "parts": parts, **self.journal_identity()}

    def close(self) -> None:
        if self.source is not None:
            self.source.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def _open_file(self) -> SourceFile:
        ticket = self.the_ticket()
        source = SourceFile(ticket.path, ticket.root, self.place)
        if ticket.limit_bytes is not None and source.size_bytes > ticket.limit_bytes:
            source.close()
            words = "The file has {} bytes, and {} may be moved at once."
            raise Failed("size_refused", words.format(source.size_bytes, ticket.limit_bytes))
        return source

    def _open_tree(self, line: Line) -> SourceTree:
        def breathe() -> None:
            if self.stop.is_set():
                raise Halted()

        ticket = self.the_ticket()
        return SourceTree(ticket.path, self.state.directory, breathe, ticket.limit_bytes, ticket.root, self.place)

    def the_source(self) -> Union[SourceFile, SourceTree]:
        if self.source is None:
            raise Failed("mover_error", "The source is not open.")
        return self.source

    def part_md5s(self) -> List[str]:
        return [self.finished[number][1] for number in range(1, self.the_ticket().part_count + 1)]

    def is_entry(self, entry: Any) -> bool:
        """Whether it is what a finished part leaves: the store's ETag, our MD5, and our CRC-32 where it was wanted."""
        return (
            isinstance(entry, list)
            and len(entry) in (2, 3)
            and isinstance(entry[0], str)
            and (is_md5(entry[1]) if isinstance(entry[1], str) else not self.verify)
            and all(isinstance(crc32, str) and re.match(r"[0-9a-f]{8}\Z", crc32) for crc32 in entry[2:])
        )

    def _receipt(self, code: Optional[str], message: str, started: float) -> Document:
        receipt = super()._receipt(code, message, started)
        part_crc32 = self._part_crc32() if code is None else None
        if part_crc32 is not None:
            receipt["part_crc32"] = part_crc32
        return receipt

    def _part_crc32(self) -> Optional[List[str]]:
        entries = [self.finished[part.number] for part in self.the_ticket().parts()]
        # A journal of an earlier release has none.
        has_all = self.the_ticket().wants_part_crc32 and all(len(entry) == 3 for entry in entries)
        return [entry[2] for entry in entries] if has_all else None

    def _take_over(self, parts: Any) -> None:
        for part in self.the_ticket().parts():
            entry = parts.get(str(part.number)) if isinstance(parts, dict) else None
            if self.is_entry(entry):
                self.finished[part.number] = entry
                self.progress.resumed(part.size)
        self.saved_count = len(self.finished)

    def _send_part(self, line: Line, part: Part) -> None:
        source = self.the_source()

        def once() -> List[Optional[str]]:
            md5 = new_digest("md5") if self.verify else None
            crc32 = new_digest("crc32") if self.the_ticket().wants_part_crc32 else None
            sent = 0

            def feed(send: Callable[[Any], Any]) -> None:
                nonlocal sent
                while sent < part.size:
                    line.check()
                    if md5 is None and isinstance(source, SourceFile) and line.can_send_file():
                        count = source.send(line, part.offset + sent, part.size - sent)
                        sent += count
                        self.progress.moved(count)
                        continue
                    data = source.read_into(line.buffer()[: part.size - sent], part.offset + sent)
                    if not len(data):
                        raise Failed("source_changed", "The file became shorter while it was being moved.")
                    for digest in (md5, crc32):
                        if digest is not None:
                            digest.update(data)
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
                return [etag, found] + ([] if crc32 is None else [crc32.hexdigest()])
            except BaseException:
                self.progress.undone(sent)
                raise

        self.finish_part(part, self.persist(line, once))

    def _digest_source(self, line: Line, names: Set[str]) -> Dict[str, str]:
        return self.digest(line, self.the_source().read, 0, self.the_ticket().size_bytes, names)

    def _complete(self, line: Line) -> Optional[str]:
        """The ETag in the answer or ""; None for an unknown upload, which may be complete already."""
        if self.complete_instead is not None:
            if self.complete_instead(self._part_crc32()):
                return ""
            if self.stop.is_set():
                raise Halted()
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
            return ObjectSeen(ticket.size_bytes, said or None, False, None, {})
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
        # Under a key service the ETags are no MD5s, and who may not look is not told so but by those of the parts.
        parts_agree = all(bare_etag(entry[0]) == entry[1] for entry in self.finished.values())
        if parts_agree:
            self.prove("part_md5", multipart_etag(self.part_md5s()))
        etags = [etag for etag in (seen.etag, said) if etag]
        for etag in etags:
            if has_parts(etag, ticket.part_count):
                if etag == multipart_etag(self.part_md5s()):
                    self.prove("multipart_etag", etag)
                    return
                if parts_agree:
                    raise Failed("digest_mismatch", "The object's ETag is not that of the parts that were sent.")
        if seen.etag is not None and is_md5(seen.etag) and (ticket.part_count == 1 or said is None):
            # An unknown upload and a plain MD5: only the whole file can tell whether the object is ours.
            found = self.aside(lambda line: self._digest_source(line, {"md5"}))["md5"]
            if found != seen.etag:
                raise Failed("digest_mismatch", "The object's MD5 is not that of the file.")
            self.prove("md5", found)


class ReadAhead:
    """Pieces of an object, fetched by several threads a little ahead of the one that unpacks them.

    A piece's room is free again when it was both unpacked and hashed. Whoever brings a piece hashes what is next in
    order, unless another is at it: no thread of its own, and none that could be missing.
    """

    def __init__(self, ticket: Ticket, first_part: int, connections: int, hash_piece: Callable[[Part, memoryview], None]) -> None:
        self._size_bytes = ticket.size_bytes
        self._part_size = ticket.part_size_bytes
        self._piece_bytes = min(LARGEST_PIECE_BYTES, READ_AHEAD_BYTES // (2 * connections), self._part_size)
        self._per_part = -(-self._part_size // self._piece_bytes)
        last_part_bytes = self._size_bytes - (ticket.part_count - 1) * self._part_size
        self.count = (ticket.part_count - 1) * self._per_part + max(1, -(-last_part_bytes // self._piece_bytes))
        self._room = READ_AHEAD_BYTES // self._piece_bytes
        self._hash_piece = hash_piece
        self.first = self._next = self._unpacked = self._hashed = first_part * self._per_part
        self._views = {}  # type: Dict[int, memoryview]
        self._free = []  # type: List[memoryview]
        self._changed = threading.Condition()
        self._hashing = threading.Lock()

    def piece(self, index: int) -> Part:
        """`number` is that of the part which the piece is of."""
        part, within = divmod(index, self._per_part)
        offset = part * self._part_size + within * self._piece_bytes
        end = min((part + 1) * self._part_size, self._size_bytes)
        return Part(part + 1, offset, min(self._piece_bytes, end - offset))

    def take(self, line: Line, wanted: Optional[int] = None) -> Optional[int]:
        """The next piece that nobody fetches yet, when there is room for it; None when there is none (or it is not `wanted`)."""
        with self._changed:
            while True:
                line.check()
                if self._next >= self.count or (wanted is not None and self._next != wanted):
                    return None
                if self._next < min(self._unpacked, self._hashed) + self._room:
                    self._next += 1
                    return self._next - 1
                self._changed.wait(POLL_SECONDS)

    def buffer(self) -> memoryview:
        with self._changed:
            return self._free.pop() if self._free else memoryview(bytearray(self._piece_bytes))

    def bring(self, index: int, buffer: memoryview) -> None:
        with self._changed:
            self._views[index] = buffer
            self._changed.notify_all()
        while self._hashed in self._views and self._hashing.acquire(False):
            try:
                while self._hashed in self._views:
                    piece = self.piece(self._hashed)
                    self._hash_piece(piece, self._views[self._hashed][: piece.size])
                    with self._changed:
                        self._hashed += 1
                        self._give_back(self._hashed - 1)
            finally:
                self._hashing.release()

    def get(self, line: Line, index: int) -> Optional[memoryview]:
        """A piece, when somebody has brought it; None when nobody even fetches it."""
        with self._changed:
            while index not in self._views:
                line.check()
                if self._next <= index:
                    return None
                self._changed.wait(POLL_SECONDS)
            return self._views[index][: self.piece(index).size]

    def done_with(self, index: int) -> None:
        with self._changed:
            self._unpacked = index + 1
            self._give_back(index)

    def _give_back(self, index: int) -> None:
        if index < min(self._unpacked, self._hashed):
            self._free.append(self._views.pop(index))
            self._changed.notify_all()


class Stream:
    """The object's bytes in order, as the one who unpacks reads them."""

    def __init__(self, position: int, size_bytes: int, next_piece: Callable[[], memoryview]) -> None:
        self.position = position
        self.size_bytes = size_bytes
        self._next_piece = next_piece
        self._view = memoryview(b"")

    def some(self, most_bytes: int) -> memoryview:
        """At least one byte and at most so many; good until the next call."""
        if not len(self._view):
            if self.position >= self.size_bytes:
                raise unreadable("it ends too early")
            self._view = self._next_piece()
        view, self._view = self._view[:most_bytes], self._view[most_bytes:]
        self.position += len(view)
        return view

    def exactly(self, size_bytes: int) -> bytes:
        pieces = []  # type: List[bytes]
        while size_bytes:
            pieces.append(bytes(self.some(size_bytes)))
            size_bytes -= len(pieces[-1])
        return b"".join(pieces)

    def skip_to(self, position: int) -> None:
        while self.position < position:
            self.some(position - self.position)


class Unpacking:
    """The fetch of a directory: the object is a tar stream, unpacked while it arrives.

    The parts that arrived before an interruption are not fetched again: the journal knows up to which byte of the
    stream everything stands durably in the hidden directory, and goes on at the beginning of that byte's part, so
    that the part's MD5 can be made anew. Digests of the whole stream cannot go on in the middle; with them, and
    with pax headers for all that follows, everything is fetched again.
    """

    def __init__(self, leg: "Fetch") -> None:
        ticket = leg.the_ticket()
        self._leg = leg
        self._target = TargetTree(ticket.path, ticket.transfer_id, ticket.root, leg.state.directory, leg.place)
        leg.target = self._target
        self._target.before_replacing = self._forget_earlier_points
        self.saving = threading.Lock()  # held while a journal is made and written
        self.whole = {}  # type: Dict[str, str]
        self._running = {}  # type: Dict[str, Any]
        self._part_running = {}  # type: Dict[str, Any]
        # Up to which byte of the stream, and of the notes, all is unpacked; and the file that this byte is in, if any.
        self._from = (0, 0, None, 0)  # type: Tuple[int, int, Optional[Member], int]
        self._safe = None  # type: Optional[Tuple[int, int, Optional[Member], int]]
        self._unpacker = threading.Lock()

    def run(self) -> None:
        leg = self._leg
        journal = leg.state.load("journal.json")
        if self._was_verified(journal):
            return
        self._target.require_free()
        leg.progress.phase = "waiting" if leg.the_ticket().wait_until is not None else "moving"
        leg.seen = leg.aside(leg._await_object)
        if not self._take_up(journal):
            self._start_afresh()
        try:
            leg._fetch_all()
        except (ObjectDiffers, Failed) as error:
            # What is no archive may have become so on the way, before any digest could tell. Once more, from nothing.
            if isinstance(error, Failed) and error.code != "archive_unreadable":
                raise
            self._start_afresh()
            leg.seen = leg.aside(leg.look)
            try:
                leg._fetch_all()
            except ObjectDiffers as again:
                raise Failed("digest_mismatch", str(again)) from None
        leg.aside(self._settle)
        self._keep_verdict()
        self._target.place()
        self._target.forget_notes()

    def move(self) -> None:
        """Fetches and unpacks everything that is still missing; then the parts' MD5s are all in `leg.finished`."""
        leg, ticket = self._leg, self._leg.the_ticket()
        # What cannot be put together from the parts' digests must be made of the whole stream.
        names = leg.whole_digest_names() - {"crc32"} - (leg.part_digest_names() if ticket.part_count == 1 else set())
        self._running = {name: new_digest(name) for name in names}
        if names and self._from[0]:
            self._start_afresh()
        pieces = -(-ticket.size_bytes // min(LARGEST_PIECE_BYTES, ticket.part_size_bytes))
        pace = Pace(leg.clock, leg.asked_connections(), pieces)
        ahead = ReadAhead(ticket, len(leg.finished), pace.most, self._hash_piece)
        self._unpacker = threading.Lock()

        def tick() -> None:
            pace.adapt(leg.progress.bytes_moved)
            leg.save_if_due()

        leg.crew(lambda line: self._work(line, ahead, pace), lambda: pace.allowed + 1, tick)
        self.whole = {name: one.hexdigest() for name, one in self._running.items()}

    def journal(self) -> Document:
        """What an interrupted run can be taken up from; a journal without parts is as good as none."""
        leg = self._leg
        safe = self._safe
        document = {"version": 1, "etag": leg.seen.state(), "inode": self._target.inode(), "parts": {}}  # type: Document
        document.update(leg.journal_identity())
        if safe is None:
            return document
        self._target.sync()  # the journal may only name what would survive a power cut
        position, notes_length, member, offset = safe
        with leg.finished_lock:
            count = 0
            while count + 1 in leg.finished and (count + 1) * leg.the_ticket().part_size_bytes <= position:
                count += 1
            document["parts"] = {str(number): leg.finished[number] for number in range(1, count + 1)}
        document.update(position=position, notes_length=notes_length, member=member_document(member, offset))
        return document

    def _forget_earlier_points(self) -> None:
        """What is about to be replaced may be what a hard link before it was made of: no run may go on before that."""
        with self.saving:
            if self._leg.saved_count:
                self._leg.state.forget("journal.json")
                self._leg.saved_count = 0

    def _settle(self, line: Line) -> None:
        self._target.settle(line.check)
        self._target.sync()

    def _was_verified(self, journal: Document) -> bool:
        """An earlier run may have ended with nothing but the renaming or its receipt to do: its verdict still holds."""
        leg, target = self._leg, self._target
        same = all(journal.get(key) == value for key, value in leg.journal_identity().items())
        inode, proved, root_note = journal.get("verified_inode"), journal.get("proved"), journal.get("root_note")
        if not same or not isinstance(inode, int) or not isinstance(proved, list):
            return False
        if (
            not isinstance(root_note, list)
            or len(root_note) != 2
            or [one for one in root_note if one is not None and not isinstance(one, int)]
        ):
            return False
        if target.placed_inode() != inode:
            if not target.reopen(inode, 0):
                return False
            target.require_free()
            target.root_note = (root_note[0], root_note[1])
            target.place()
        leg.proved, leg.etag = proved, journal.get("etag")
        target.forget_notes()
        return True

    def _keep_verdict(self) -> None:
        leg = self._leg
        verdict = {"verified_inode": self._target.inode(), "root_note": list(self._target.root_note)}  # type: Document
        leg.state.save("journal.json", {**verdict, "proved": leg.proved, "etag": leg.etag, **leg.journal_identity()})

    def _take_up(self, journal: Document) -> bool:
        leg = self._leg
        parts, position, notes_length = journal.get("parts"), journal.get("position"), journal.get("notes_length")
        if not leg._fits(journal) or not parts or not isinstance(position, int) or not isinstance(notes_length, int):
            return False
        try:
            member, offset = member_of_document(journal.get("member"))
        except (ValueError, KeyError, TypeError):
            return False
        names = leg.part_digest_names()
        if not all(isinstance(digests, dict) and names <= set(digests) for digests in parts.values()):
            return False
        contiguous = sorted(int(number) for number in parts) == list(range(1, len(parts) + 1))
        good = contiguous and len(parts) * leg.the_ticket().part_size_bytes <= position <= leg.the_ticket().size_bytes
        if not good or not self._target.reopen(journal.get("inode"), 0) or not self._target.open_notes(notes_length):
            return False
        leg.finished = {int(number): digests for number, digests in parts.items()}
        leg.saved_count = len(leg.finished)
        leg.progress.resumed(len(leg.finished) * leg.the_ticket().part_size_bytes)
        self._from = self._safe = (position, notes_length, member, offset)
        return True

    def _start_afresh(self) -> None:
        leg = self._leg
        leg.finished, leg.proved, leg.saved_count = {}, [], 0
        leg.state.forget("journal.json")
        leg.progress.start_over()
        self._from, self._safe = (0, 0, None, 0), None
        self._target.create(0)

    def _work(self, line: Line, ahead: ReadAhead, pace: Pace) -> None:
        """One thread unpacks, the others fetch; were there no others, the one would fetch too."""
        if self._unpacker.acquire(False):
            self._unpack(line, ahead)
            return
        while True:
            pace.begin(line)
            try:
                index = ahead.take(line)
                if index is None:
                    return
                self._bring_piece(line, ahead, index)
            finally:
                pace.end()

    def _unpack(self, line: Line, ahead: ReadAhead) -> None:
        at = ahead.first - 1

        def next_piece() -> memoryview:
            nonlocal at
            line.check()
            if at >= ahead.first:
                ahead.done_with(at)
            at += 1
            view = ahead.get(line, at)
            while view is None:  # nobody fetches it: the host allowed no other thread
                if ahead.take(line, at) is not None:
                    self._bring_piece(line, ahead, at)
                view = ahead.get(line, at)
            return view

        stream = Stream(ahead.piece(ahead.first).offset, self._leg.the_ticket().size_bytes, next_piece)
        reader = TarReader(stream)
        position, _, member, offset = self._from
        stream.skip_to(position)
        if member is not None and not self._target.go_on(
            member, offset, stream, functools.partial(self._mark, reader, stream, member)
        ):
            raise ObjectDiffers("The beginning of a file is gone.")
        while True:
            self._mark(reader, stream, None, 0)
            member = reader.next()
            if member is None:
                break
            self._target.make(member, stream, functools.partial(self._mark, reader, stream, member))
        while stream.position < stream.size_bytes:
            if bytes(stream.some(BUFFER_BYTES)).strip(b"\0"):
                raise unreadable("something follows its end")
        ahead.done_with(at)

    def _mark(self, reader: TarReader, stream: Stream, member: Optional[Member], offset: int) -> None:
        """Everything before this point of the stream is in the tree, and `offset` bytes of the member."""
        if not self._running and not reader.for_all:
            self._safe = (stream.position, self._target.notes_length(), member, offset)

    def _bring_piece(self, line: Line, ahead: ReadAhead, index: int) -> None:
        leg = self._leg
        piece = ahead.piece(index)
        buffer = ahead.buffer()
        done = 0

        def once() -> None:  # takes up where the attempt before broke off
            nonlocal done
            if done == piece.size:
                return
            response = leg.ask_for(line, piece.offset + done, piece.size - done)
            while done < piece.size:
                count = line.read_into(response, buffer[done : min(done + BUFFER_BYTES, piece.size)])
                done += count
                leg.progress.moved(count)

        leg.persist(line, once, lambda: done)
        ahead.bring(index, buffer)

    def _hash_piece(self, piece: Part, view: memoryview) -> None:
        leg = self._leg
        within = (piece.offset % leg.the_ticket().part_size_bytes) if piece.size else 0
        if not within:
            self._part_running = {name: new_digest(name) for name in leg.part_digest_names()}
        for one in itertools.chain(self._part_running.values(), self._running.values()):
            one.update(view)
        end = piece.offset + piece.size
        if within + piece.size == leg.the_ticket().part_size_bytes or end == leg.the_ticket().size_bytes:
            found = {name: one.hexdigest() for name, one in self._part_running.items()}
            wrong = leg.wrong_digest(piece, found)
            if wrong is not None:
                words = "The {} of part {} is not the one that was announced."
                raise ObjectDiffers(words.format(wrong, piece.number))
            leg.finish_part(piece, found)


def member_document(member: Optional[Member], offset: int) -> Optional[Document]:
    if member is None:
        return None
    name = base64.b64encode(member.name).decode("ascii")
    return {"name": name, "mode": member.mode, "size": member.size, "mtime_ns": member.mtime_ns, "offset": offset}


def member_of_document(document: Any) -> Tuple[Optional[Member], int]:
    """The regular file that an interrupted run had begun; raises ValueError, KeyError or TypeError."""
    if document is None:
        return None, 0
    numbers = [document[key] for key in ("mode", "size", "mtime_ns", "offset")]
    if not all(isinstance(number, int) for number in numbers) or not 0 <= numbers[3] <= numbers[1]:
        raise ValueError
    name = base64.b64decode(document["name"], validate=True)
    return Member(name, b"0", numbers[0], numbers[1], numbers[2], b""), numbers[3]


# --- several tasks --------------------------------------------------------------------------------


class Rank(NamedTuple):
    """Which of the tasks that were started together this is. `run`: one word, the same for all of them, never used again."""

    task: int
    tasks: int
    run: str


def share_of(ticket: Ticket, task: int, tasks: int) -> List[Part]:
    """One contiguous stretch of the file: two nodes then meet at one place only, and disks see long runs."""
    first, end = ticket.part_count * task // tasks, ticket.part_count * (task + 1) // tasks
    return [part for part in ticket.parts() if first < part.number <= end]


class LaterRun(AnotherMover):
    """The first task of a later run speaks where this run's did: what its tasks write is no longer this one's business."""


class TaskBoard:
    """Where tasks tell each other how far they are: a file each in the state directory, which all their nodes see.

    Only its own task writes a file, whole each time, with the run's word in it: what an earlier run left counts
    nothing. It is written anew every two seconds though nothing happens: the others see that the task lives, and
    on NFS a client that writes into a directory also looks at it afresh.

    Words of the first task: waiting, begin, alone (the others may go), stopping, ended; of the others: waiting,
    moving, done, failed.
    """

    def __init__(self, state: State, clock: Clock, progress: Progress, rank: Rank) -> None:
        self._state = state
        self._clock = clock
        self._progress = progress
        self._rank = rank
        self._said = {}  # type: Document
        self._beats = 0
        self._beat_due = 0.0
        self._look_due = 0.0
        self._heard = {}  # type: Dict[int, Tuple[Any, float]]
        self._lock = -1

    def say(self, word: str, **more: Any) -> bool:
        self._said = dict(more, word=word)
        return self._write()

    def beat(self) -> None:
        if self._clock.monotonic() >= self._beat_due:
            self._write()

    def look_is_due(self) -> bool:
        now = self._clock.monotonic()
        if now < self._look_due:
            return False
        self._look_due = now + TASK_LOOK_SECONDS
        return True

    def hear(self, task: int) -> Document:
        """A task's latest word in this run; {} before its first. A task that is silent for long ends this one."""
        document = self._state.load(self._file(task))
        now = self._clock.monotonic()
        if document.get("run") != self._rank.run:
            if task == 0 and document and self._heard.get(task, (None, now))[0] is not None:
                raise LaterRun()
            document = {}
        beat = document.get("beat")
        before, since = self._heard.setdefault(task, (beat, now))
        if beat != before:
            self._heard[task] = (beat, now)
        elif now - since > TASK_SILENCE_SECONDS:
            message = "Task {} of this job has said nothing for {:g} seconds; run it again."
            raise Failed("interrupted", message.format(task, TASK_SILENCE_SECONDS))
        return document

    def claim(self) -> bool:
        """False while the same task of an earlier run is still at work somewhere. Best effort: some disks cannot lock."""
        if self._state.directory is None:
            return True
        path = os.path.join(self._state.directory, "task-{}.lock".format(self._rank.task))
        with contextlib.suppress(OSError):
            if self._lock < 0:
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def _write(self) -> bool:
        self._beats += 1
        self._beat_due = self._clock.monotonic() + TASK_BEAT_SECONDS
        document = dict(self._said, run=self._rank.run, beat=self._beats, host=node_name(), counts=self._progress.counts())
        return self._state.save(self._file(self._rank.task), document)

    @staticmethod
    def _file(task: int) -> str:
        return "task-{}.json".format(task)


def node_name() -> str:
    """Slurm's name of the node, which tells more than a host name where a site has given it others."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


class LeadingTask(Leg):
    """Task 0. Prepares, moves its own share, waits for the others, verifies and finishes; its receipt is the only one."""

    def __init__(self, rank: Rank, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rank = rank
        self.board = TaskBoard(self.state, self.clock, self.progress, rank)
        self._shared_out = False
        self._listening = False
        self._shares = {}  # type: Dict[int, Document]
        self._counted = {}  # type: Dict[int, Tuple[int, ...]]

    def carry_out(self) -> Document:
        self.board.say("waiting")
        return super().carry_out()

    # What a kind of leg says for itself:

    def can_be_shared(self) -> bool:
        # A directory is one stream.
        return self.the_ticket().part_count > 1 and self.the_ticket().archive is None

    def announcement(self) -> Document:
        """What the others must know before they begin."""
        raise NotImplementedError

    def is_entry(self, entry: Any) -> bool:
        """Whether it is what a finished part leaves."""
        raise NotImplementedError

    def start_afresh(self) -> None:
        """The other tasks may still be writing where they were told to: take another place."""
        raise NotImplementedError

    # What they share:

    def crew(self, work: Callable[[Line], T], size: Callable[[], int], tick: Optional[Callable[[], None]] = None) -> T:
        def tend() -> None:
            if tick is not None:
                tick()
            self._tend()

        return super().crew(work, size, tend)

    def own_share(self) -> List[Part]:
        return share_of(self.the_ticket(), 0, self.rank.tasks)

    def share_out(self) -> Iterable[Part]:
        if self._shared_out:  # what they fetched is not the object: this one does it over, by itself
            self.start_afresh()
            return super().share_out()
        self._shared_out = True
        if not self.can_be_shared():
            self.board.say("alone")
            return super().share_out()
        if self.finished:  # the others' journals will speak of their shares alone: all that is known must be in ours first
            self.saved_count = -1
            self.save_journal()
        self._listening = self.board.say("begin", **self.announcement())
        return self.own_share() if self._listening else super().share_out()

    def do_without_others(self) -> None:
        self._listening = False
        self._shares.clear()
        self.board.say("alone")

    def gather(self) -> None:
        if not self._listening:
            return
        self.aside(self._until_all_are_done)
        self._listening = False
        ticket = self.the_ticket()
        for task, said in sorted(self._shares.items()):
            parts = said.get("parts")
            for part in share_of(ticket, task, self.rank.tasks):
                number = str(part.number)
                if not isinstance(parts, dict) or number not in parts or not self.is_entry(parts[number]):
                    raise Failed("mover_error", "Task {} does not say what became of part {}.".format(task, number))
                self.finish_part(part, parts[number])

    def _until_all_are_done(self, line: Line) -> None:
        while len(self._shares) < self.rank.tasks - 1:
            line.check()
            self.clock.pause(POLL_SECONDS, line.halt)

    def _tend(self) -> None:
        self.board.beat()
        if self._listening and self.board.look_is_due():
            for task in range(1, self.rank.tasks):
                if task not in self._shares:
                    self._listen(task)

    def _listen(self, task: int) -> None:
        said = self.board.hear(task)
        counts = said.get("counts")
        if isinstance(counts, list) and len(counts) == 4 and all(isinstance(count, int) for count in counts):
            before = self._counted.get(task, (0, 0, 0, 0))
            self.progress.add(*(counts[at] - before[at] for at in range(4)))
            self._counted[task] = tuple(counts)
        if said.get("word") == "done":
            self._shares[task] = said
        elif said.get("word") == "failed":
            code, message = str(said.get("code")), redact(str(said.get("message")))
            if code == "object_differs":
                raise ObjectDiffers(message)
            raise Failed(code, message)

    def _run_resumably(self) -> None:
        try:
            super()._run_resumably()
        except Failed as failure:
            self.board.say("stopping", code=failure.code)
            raise
        except BaseException:
            self.board.say("stopping", code="mover_error")
            raise

    def _receipt(self, code: Optional[str], message: str, started: float) -> Document:
        receipt = super()._receipt(code, message, started)
        if code is None and self._shares:
            own = [all_of - sum(one[at] for one in self._counted.values()) for at, all_of in enumerate(self.progress.counts())]
            told = {0: (node_name(), own)}
            told.update((task, (str(said.get("host")), list(self._counted[task]))) for task, said in self._shares.items())
            receipt["tasks"] = [self._told(task, host, counts) for task, (host, counts) in sorted(told.items())]
        return receipt

    def _told(self, task: int, host: str, counts: List[int]) -> Document:
        parts = share_of(self.the_ticket(), task, self.rank.tasks)
        return {
            "task": task,
            "host": host,
            "first_part": parts[0].number if parts else None,
            "parts": len(parts),
            "bytes_moved": counts[0],
            "bytes_resumed": counts[2],
        }

    def _leave_aside(self, receipt: Document) -> None:
        super()._leave_aside(receipt)
        self.board.say("ended", ok=receipt["ok"], code=receipt["code"])

    def _hand_over(self, receipt: Document) -> None:
        super()._hand_over(receipt)
        # Not before: a task that ends badly may end this one too.
        self.board.say("ended", ok=receipt["ok"], code=receipt["code"])


class LeadingFetch(LeadingTask, Fetch):
    """Task 0 of a fetch: it alone makes, locks, verifies and renames the hidden file."""

    def can_be_shared(self) -> bool:
        # Two nodes that write into one page of a file on NFS may overwrite each other's bytes.
        return super().can_be_shared() and self.the_ticket().part_size_bytes % LARGEST_PAGE_BYTES == 0

    def announcement(self) -> Document:
        return {"inode": self.the_target().inode(), "object": list(self.seen)}

    def is_entry(self, entry: Any) -> bool:
        names = self.part_digest_names()
        return isinstance(entry, dict) and set(entry) == names and all(isinstance(entry[name], str) for name in names)

    def start_afresh(self) -> None:
        ticket = self.the_ticket()
        self.the_target().close()
        self.target = TargetFile(ticket.path, ticket.transfer_id, ticket.root, self.place)
        self.target.create(ticket.size_bytes)

    def gather(self) -> None:
        if self._listening:
            super().gather()
            self.the_target().look_afresh()


class LeadingPut(LeadingTask, Put):
    """Task 0 of a put: it alone completes the upload."""

    def announcement(self) -> Document:
        return {"source": self.the_source().identity}

    def is_entry(self, entry: Any) -> bool:
        return Put.is_entry(self, entry)

    def _take_over(self, parts: Any) -> None:
        super()._take_over(parts)
        mine = {part.number for part in self.own_share()}
        theirs = set(self.finished) - mine
        others = sum(part.size for part in self.the_ticket().parts() if part.number in theirs)
        self.progress.add(done=-others, resumed=-others)  # they count theirs themselves


class Dismissed(Exception):
    """The first task does without this one."""


class FollowingTask(Leg):
    """One of the other tasks: moves its share when the first one says so. It leaves its word, no receipt."""

    def __init__(self, rank: Rank, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.rank = rank
        self.board = TaskBoard(self.state, self.clock, self.progress, rank)
        self.journal_name = "journal-{}.json".format(rank.task)
        self.receipt_kept = True  # there is none to keep
        self._word = {}  # type: Document

    def carry_out(self) -> Document:
        """Gives what a receipt would say of `ok`, `code` and `message`."""
        code, message = None, ""  # type: Optional[str], str
        is_late = False
        try:
            self._follow()
        except Dismissed:
            pass
        except ObjectDiffers as error:
            code, message = "object_differs", str(error)
        except Failed as failure:
            code, message, is_late = failure.code, failure.message, isinstance(failure, LaterRun)
        except Exception as error:
            traceback.print_tb(error.__traceback__)  # places in this file, never values
            code, message = "mover_error", "The mover failed: {} {}".format(type(error).__name__, redact(str(error))).strip()
        if code is not None and not is_late:
            self.board.say("failed", code=code, message=message)
            if self._is_done_without():
                code = None
        self.board.close()
        where = "Task {} of {} on {}: ".format(self.rank.task, self.rank.tasks, node_name())
        return {"ok": code is None, "code": code, "message": where + message}

    # What a kind of leg says for itself:

    def take_place(self, said: Document) -> None:
        """Opens what the first task speaks of, and takes over what earlier runs did of this share."""
        raise NotImplementedError

    def move(self, parts: List[Part]) -> None:
        raise NotImplementedError

    # What they share:

    def crew(self, work: Callable[[Line], T], size: Callable[[], int], tick: Optional[Callable[[], None]] = None) -> T:
        def tend() -> None:
            if tick is not None:
                tick()
            self.board.beat()
            if self.board.look_is_due():
                self._listen()

        return super().crew(work, size, tend)

    def own_share(self) -> List[Part]:
        return share_of(self.the_ticket(), self.rank.task, self.rank.tasks)

    def give_up(self) -> None:
        """What is there is the first task's."""

    def _follow(self) -> None:
        if not self.board.say("waiting"):
            raise Dismissed()  # a full disk, most often: nobody would hear what this task does
        self.aside(lambda line: self._until(line, self.board.claim, VISIBLE_SECONDS, AnotherMover()))
        self.aside(lambda line: self._until(line, lambda: self._word.get("word") == "begin"))
        self.board.say("moving")
        self.ticket = self.ticket_of(self.aside(lambda line: self.persist(line, lambda: self._read_ticket(line))))
        try:
            self.take_place(self._word)
            self.move(self.own_share())
            self.save_journal()
        except Failed as failure:
            if failure.code in MAY_RUN_AGAIN:
                with contextlib.suppress(Failed):
                    self.save_journal()
            raise
        finally:
            if not self._stuck:
                self.close()
        parts = {str(part.number): self.finished[part.number] for part in self.own_share()}
        if not self.board.say("done", parts=parts):
            raise Failed("mover_error", "What was moved could not be written down.")

    def _listen(self) -> None:
        self._word = said = self.board.hear(0)
        word = said.get("word")
        if word == "alone" or (word == "ended" and said.get("ok") is True):
            raise Dismissed()
        if word in ("stopping", "ended"):
            raise Failed(str(said.get("code")), "The first task of the job ended.")

    def _until(
        self, line: Line, done: Callable[[], bool], seconds: Optional[float] = None, otherwise: Optional[Failed] = None
    ) -> None:
        began = self.clock.monotonic()
        while not done():
            if seconds is not None and otherwise is not None and self.clock.monotonic() - began > seconds:
                raise otherwise
            line.check()
            self.clock.pause(POLL_SECONDS, line.halt)

    def _is_done_without(self) -> bool:
        """Waits for the first task's end: its receipt must be away before the scheduler ends all for this one's failure."""
        until = self.clock.monotonic() + TASK_LAST_WORD_SECONDS
        while self.clock.monotonic() < until and not self.stop.is_set():
            with contextlib.suppress(Failed):
                said = self.board.hear(0)
                if said.get("word") in ("alone", "ended"):
                    return said["word"] == "alone" or said.get("ok") is True
            self.board.beat()
            self.clock.pause(POLL_SECONDS, self.stop)
        return False


class JoinedTargetFile(TargetFile):
    """The hidden file as the other tasks hold it: without the lock, which is the first task's."""

    def _lock(self) -> None:
        pass


class FollowingFetch(FollowingTask, Fetch):
    def take_place(self, said: Document) -> None:
        ticket = self.the_ticket()
        self.seen = ObjectSeen(*said["object"])
        target = self.target = JoinedTargetFile(ticket.path, ticket.transfer_id, ticket.root, self.place)
        unseen = Failed(
            "target_missing_directory",
            "The file that the first task made cannot be seen from every node; is it on a file system that they share?",
        )
        inode, size_bytes = said["inode"], ticket.size_bytes
        self.aside(lambda line: self._until(line, lambda: target.reopen(inode, size_bytes), VISIBLE_SECONDS, unseen))
        journal = self.state.load_journal()
        if self._fits(journal) and journal.get("inode") == said["inode"]:
            mine = {str(part.number) for part in self.own_share()}
            self.finished = {int(number): md5 for number, md5 in journal["parts"].items() if number in mine}

    def move(self, parts: List[Part]) -> None:
        queue = PartQueue(parts)
        self.pace(queue, self._take_part)
        self.aside(lambda line: self.the_target().sync_data())  # what this node still holds, no other can see


class FollowingPut(FollowingTask, Put):
    def take_place(self, said: Document) -> None:
        self.source = self._open_file()
        self.source.check(said["source"])
        self.the_ticket().measure(self.source.size_bytes)
        journal = self.state.load_journal()
        if all(journal.get(key) == value for key, value in self.journal_identity().items()):
            self.source.check(journal.get("source"))
            numbers = (str(part.number) for part in self.own_share())
            self._take_over({number: journal["parts"].get(number) for number in numbers})

    def move(self, parts: List[Part]) -> None:
        queue = PartQueue(part for part in parts if part.number not in self.finished)
        self.pace(queue, self._send_part)
        self.the_source().check(self.the_source().identity)


def leg_for(kind: str, rank: Rank) -> Callable[..., Leg]:
    """What makes the leg of this task."""
    if rank.tasks == 1:
        return Fetch if kind == "fetch" else Put
    if rank.task == 0:
        leading = LeadingFetch if kind == "fetch" else LeadingPut  # type: Callable[..., Leg]
        return lambda *arguments: leading(rank, *arguments)
    following = FollowingFetch if kind == "fetch" else FollowingPut  # type: Callable[..., Leg]
    return lambda *arguments: following(rank, *arguments)


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
    place: Optional[str] = None,
) -> Document:
    """Carries out a fetch ticket and gives its receipt. A failed transfer raises nothing.

    on_progress is called from another thread. Setting `stop` ends the transfer soon with `interrupted`.
    reload_ticket gives a ticket with fresh URLs when a store says that one has expired. `place` is the directory below
    which a ticket for a node names its path.
    """
    again = None if reload_ticket is None else renewed_by(reload_ticket)
    leg = Fetch(lambda line: ticket, again, state_directory, on_progress, stop, concurrency, verify, clock, place)
    return leg.carry_out()


def put(
    ticket: Document,
    state_directory: Optional[str] = None,
    on_progress: Optional[Callable[[Document], None]] = None,
    stop: Optional[threading.Event] = None,
    reload_ticket: Optional[Callable[[], Document]] = None,
    concurrency: Optional[int] = None,
    verify: Optional[bool] = None,
    clock: Optional[Clock] = None,
    place: Optional[str] = None,
    complete: Optional[Callable[[Optional[List[str]]], bool]] = None,
) -> Document:
    """Carries out a put ticket and gives its receipt, as `fetch` does.

    `complete` is called when all parts are there, with their CRC-32 where the ticket wants them, and may complete the
    upload itself: True if it has. It must come to an end when `stop` is set.
    """
    again = None if reload_ticket is None else renewed_by(reload_ticket)
    leg = Put(lambda line: ticket, again, state_directory, on_progress, stop, concurrency, verify, clock, place)
    leg.complete_instead = complete
    return leg.carry_out()


def discard(state_directory: str, place: str) -> None:
    """Removes what a fetch into this place has left hidden beside its target, if anything. Raises Failed."""
    noted = State(state_directory).load(TARGET_NAME)
    transfer_id, path = noted.get("transfer_id"), noted.get("path_base64")
    if not isinstance(transfer_id, str) or not re.match(r"[a-z0-9]{1,64}\Z", transfer_id) or not isinstance(path, str):
        return
    parent = os.path.dirname(base64.b64decode(path).rstrip(b"/"))
    with disk_errors("target_missing_directory"):
        try:
            there = Handle(Place(place).open_directory(parent, "target_missing_directory"))
        except (Failed, FileNotFoundError):
            return  # nothing is hidden where nothing can be reached
        remove_tree(there.descriptor, hidden_name(transfer_id))
        os.fsync(there.descriptor)


def renewed_by(reload_ticket: Callable[[], Document]) -> Callable[[Line], Document]:
    def renew(line: Line) -> Document:
        try:
            return reload_ticket()
        except Exception:
            raise Trouble("The ticket could not be renewed.", "ticket_expired") from None

    return renew


def shares_in_words(receipt: Document) -> Iterator[str]:
    words = (
        "Task {task} of {0} on {host}: {parts} parts from {first_part} on, {bytes_moved} bytes moved, {bytes_resumed} resumed."
    )
    for share in receipt.get("tasks", []):
        yield words.format(len(receipt["tasks"]), **share)


def discard_and_tell(state_directory: str, place: str) -> int:
    try:
        discard(state_directory, place)
    except Failed as failure:
        print("{}: {}".format(failure.code, failure.message), file=sys.stderr)
        return 1
    return 0


def main(arguments: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="Moves one file or directory between a disk and an S3 store as a ticket says.")
    parser.add_argument("kind", choices=("fetch", "put", "discard"))
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--ticket", metavar="FILE", help="the ticket itself")
    where.add_argument("--ticket-url-file", metavar="FILE", help="a file that holds the ticket's presigned address")
    parser.add_argument("--state-directory", metavar="DIR", help="journal and receipt; default: where FILE stands")
    parser.add_argument("--place", metavar="DIR", help="a node's directory, below which the ticket's path is")
    parser.add_argument("--concurrency", type=int, metavar="N", help="connections at once")
    parser.add_argument("--no-verify", action="store_true", help="leave out the MD5 of the parts (benchmarks only)")
    parser.add_argument("--task", type=int, default=0, metavar="K", help="which of several tasks this is, from 0")
    parser.add_argument("--tasks", type=int, default=1, metavar="N", help="how many tasks share this ticket and DIR")
    parser.add_argument("--run", default="", metavar="ID", help="one word, the same for the tasks that were started together")
    options = parser.parse_args(arguments)
    if options.kind == "discard":
        if not options.state_directory or not options.place:
            parser.error("discard needs --state-directory and --place")
        return discard_and_tell(options.state_directory, options.place)
    if not options.ticket and not options.ticket_url_file:
        parser.error("one of --ticket and --ticket-url-file is needed")
    if not 0 <= options.task < options.tasks <= MOST_TASKS:
        parser.error("--task must be less than --tasks, which is at most {}".format(MOST_TASKS))
    if options.tasks > 1 and not re.match(r"[A-Za-z0-9._-]{1,128}\Z", options.run):
        parser.error("several tasks need the same --run: letters, digits, '.', '_' and '-'")
    if options.concurrency is not None and options.concurrency < 1:
        parser.error("--concurrency must be at least 1")

    source = TicketInFile(options.ticket) if options.ticket else TicketAtUrl(options.ticket_url_file)
    state_directory = options.state_directory or os.path.dirname(os.path.abspath(options.ticket or options.ticket_url_file))
    stop = threading.Event()
    leg = leg_for(options.kind, Rank(options.task, options.tasks, options.run))(
        source.read,
        source.read,
        state_directory,
        None,
        stop,
        options.concurrency,
        False if options.no_verify else None,
        None,
        options.place,
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

    broken = {"ok": False, "code": "mover_error", "message": "The mover broke down."}  # type: Document
    receipt = receipts[0] if receipts else broken
    if not receipt["ok"]:
        print("{}: {}".format(receipt["code"], receipt["message"]), file=sys.stderr)
        return 75 if receipt["code"] in MAY_RUN_AGAIN else 1
    if options.task > 0:
        return 0  # the first task has the last word
    if not leg.receipt_kept:
        print("The file is in its place, but its receipt could not be kept.", file=sys.stderr)
        return 75
    for row in shares_in_words(receipt):
        print(row)
    print(receipt["message"])
    print(SUCCESS_PHRASES[options.kind], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
