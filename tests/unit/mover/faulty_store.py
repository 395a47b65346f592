"""A small S3 store on 127.0.0.1 that can fail in every way a real one, or the road to it, was seen to fail."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import re
import socket
import ssl
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

SIGNATURE = "5ecre7f00d" * 6
PART = 1000


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def hidden_files(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".stagecoach")]


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def multipart_etag(data: bytes, part_size: int) -> str:
    parts = [data[at : at + part_size] for at in range(0, len(data), part_size)] or [b""]
    joined = b"".join(bytes.fromhex(md5(part)) for part in parts)
    return f"{md5(joined)}-{len(parts)}"


def part_crc32(data: bytes, part_size: int) -> list[str]:
    """Of each part, in order."""
    parts = [data[at : at + part_size] for at in range(0, len(data), part_size)] or [b""]
    return [f"{zlib.crc32(part):08x}" for part in parts]


@dataclass
class Fault:
    """What goes wrong, with which requests, and how often."""

    action: str
    method: str
    part: int | None = None
    times: int = 1
    status: int = 500
    body: bytes = b""


@dataclass
class Request:
    method: str
    key: str
    part: int
    body_bytes: int = 0


@dataclass
class FaultyStore:
    """`dialect` is "rgw" (206, ETag with -N) or "rclone" (200 for a range, plain MD5 of the whole object)."""

    dialect: str = "rgw"
    part_size: int = PART
    objects: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    parts: dict[int, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    checksum_modes: list[str | None] = field(default_factory=list)
    completed: int = 0
    epoch: int = 0
    expired_status: int = 403
    port: int = 0
    certificate: Path | None = None
    hold: threading.Event = field(default_factory=threading.Event)
    waiting: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    # What tests say and ask:

    def keep(self, key: str, data: bytes) -> None:
        self.objects[key] = data
        self.etags[key] = multipart_etag(data, self.part_size) if self.dialect == "rgw" else md5(data)

    def fail(self, method: str, action: str, part: int | None = None, times: int = 1, **more: Any) -> None:
        self.faults.append(Fault(action, method, part, times, **more))

    def url(self, key: str, **query: object) -> str:
        more = "".join(f"&{name}={value}" for name, value in query.items())
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://127.0.0.1:{self.port}/bucket/{key}?X-Amz-Signature={SIGNATURE}&epoch={self.epoch}{more}"

    def expire_urls(self) -> None:
        self.epoch += 1

    def count(self, method: str, key: str = "object", part: int | None = None) -> int:
        return sum(1 for r in self.requests if r.method == method and r.key == key and part in (None, r.part))

    def fetch_ticket(self, path: bytes, size: int, **more: Any) -> dict[str, Any]:
        there = {"get_url": self.url("object"), "head_url": self.url("object"), "etag": None}
        return self._ticket("fetch", path, size, object=there, **more)

    def put_ticket(self, path: bytes, size: int, **more: Any) -> dict[str, Any]:
        count = max(1, -(-size // self.part_size))
        urls = [self.url("object", uploadId="u1", partNumber=number) for number in range(1, count + 1)]
        there = {
            "part_urls": urls,
            "complete_url": self.url("object", uploadId="u1"),
            "head_url": self.url("object"),
        }
        return self._ticket("put", path, size, upload=there, **more)

    def _ticket(self, kind: str, path: bytes, size: int, **more: Any) -> dict[str, Any]:
        return {
            "version": 1,
            "transfer_id": "t1",
            "kind": kind,
            "path_base64": base64.b64encode(path).decode(),
            "size_bytes": size,
            "part_size_bytes": self.part_size,
            "progress_url": self.url("progress"),
            "receipt_url": self.url("receipt"),
            "concurrency": 2,
            **more,
        }

    # What the handler asks:

    def fault_for(self, method: str, key: str, part: int) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.method == method and key == "object" and fault.times and fault.part in (None, part):
                    fault.times -= 1
                    return fault
        return None

    @contextlib.contextmanager
    def serving(self) -> Iterator[FaultyStore]:
        store = self

        class Handler(StoreHandler):
            pass

        Handler.store = store
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.hold.set()
            server.shutdown()
            server.server_close()


class StoreHandler(BaseHTTPRequestHandler):
    store: FaultyStore
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        self.fault: Fault | None = None
        with contextlib.suppress(OSError):
            super().handle_one_request()
            return
        self.close_connection = True

    # -- requests

    def do_HEAD(self) -> None:
        self._begin()
        self.store.checksum_modes.append(self.headers.get("x-amz-checksum-mode"))
        if self._refused():
            return
        data = self.store.objects.get(self.key)
        if data is None:
            self._answer(404)
        else:
            self._answer(200, length=len(data), headers=self._object_headers())

    def do_GET(self) -> None:
        self._begin()
        data = self.store.objects.get(self.key)
        wanted = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if data is None or wanted is None:
            if self._refused():
                return
            self._answer(404 if data is None else 200, data or error("NoSuchKey"))
            return
        first, last = int(wanted.group(1)), int(wanted.group(2))
        self._begin(first // self.store.part_size + 1)
        if self._refused():
            return
        body = data[first : last + 1]
        status = 206 if self.store.dialect == "rgw" else 200
        headers = {**self._object_headers(), "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        action = self.fault.action if self.fault else ""
        if action == "whole_object":
            status, body = 200, data
            del headers["Content-Range"]
        if action == "wrong_range":
            headers["Content-Range"] = f"bytes {first + 1}-{last + 1}/{len(data)}"
        if action == "wrong_bytes":
            body = bytes([body[0] ^ 1]) + body[1:]
        if action == "other_object":
            headers["ETag"] = '"' + "0" * 32 + '-9"'
        if action in ("short", "stall_inside", "reset_inside", "hold"):
            self._head(status, len(body), headers)
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self._break_off(action)
            return
        self._answer(status, body, headers)

    def do_PUT(self) -> None:
        self._begin()
        length = int(self.headers["Content-Length"])
        if self.fault and self.fault.action == "refuse_inside":
            self.rfile.read(min(length, 10))
            self._answer(self.fault.status, self.fault.body, {"Connection": "close"})
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_WR)
            while self.rfile.read(65536):
                pass
            return
        if self.fault and self.fault.action in ("reset_inside", "stall_inside", "hold"):
            self.rfile.read(length // 2)
            self._break_off(self.fault.action)
            return
        body = self.rfile.read(length)
        self.request_seen.body_bytes = len(body)
        if self._refused():
            return
        if self.key != "object":
            self.store.objects[self.key] = body
            self._answer(200)
            return
        part = int(self.query["partNumber"][0])
        tag = md5(body)
        if self.fault and self.fault.action == "wrong_bytes":
            tag = "0" * 32
        with self.store.lock:
            self.store.parts[part] = body
        if self.fault and self.fault.action == "lost_answer":
            self._break_off("reset")
            return
        self._answer(200, headers={"ETag": f'"{tag}"', **self.store.headers})

    def do_POST(self) -> None:
        self._begin()
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self._refused():
            return
        with self.store.lock:
            if self.store.completed:
                self._answer(404, error("NoSuchUpload"))
                return
            said = re.findall(r"<Part><ETag>\"(\w+)\"</ETag><PartNumber>(\d+)</PartNumber></Part>", body)
            have = [(md5(data), str(number)) for number, data in sorted(self.store.parts.items())]
            if said != have:
                self._answer(400, error("InvalidPart"))
                return
            self.store.keep("object", b"".join(data for _, data in sorted(self.store.parts.items())))
            self.store.completed += 1
        if self.fault and self.fault.action == "lost_answer":
            self._break_off("reset")
            return
        self._answer(200, b"<CompleteMultipartUploadResult></CompleteMultipartUploadResult>")

    # -- parts of answers

    def _begin(self, part: int | None = None) -> None:
        where = urlsplit(self.path)
        self.key = where.path.rsplit("/", 1)[-1]
        self.query = parse_qs(where.query)
        number = part or int((self.query.get("partNumber") or ["0"])[0])
        ranged = self.command == "GET" and self.headers.get("Range") is not None
        if ranged and part is None:
            return
        self.request_seen = Request(self.command, self.key, number)
        self.store.requests.append(self.request_seen)
        self.fault = self.store.fault_for(self.command, self.key, number)

    def _refused(self) -> bool:
        """Answers instead of the store when a fault says so, or when the URL is of an earlier epoch."""
        fault = self.fault
        if self.query.get("epoch") != [str(self.store.epoch)]:
            self._answer(self.store.expired_status, error("AccessDenied", "Request has expired"))
            return True
        if fault is None:
            return False
        if fault.action == "status":
            self._answer(fault.status, fault.body)
            return True
        if fault.action == "expire":
            self.store.expire_urls()
            self._answer(self.store.expired_status, error("AccessDenied", "Request has expired"))
            return True
        if fault.action in ("reset", "stall"):
            self._break_off(fault.action)
            return True
        return False

    def _break_off(self, action: str) -> None:
        self.close_connection = True
        if action == "hold":
            self.store.waiting.set()
        if action in ("stall", "stall_inside", "hold"):
            self.store.hold.wait(20)
        elif action.startswith("reset"):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)

    def _object_headers(self) -> dict[str, str]:
        etag = self.store.etags.get(self.key)
        return {**({} if etag is None else {"ETag": f'"{etag}"'}), **self.store.headers}

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, length: int | None = None) -> None:
        self._head(status, len(body) if length is None else length, headers)
        if self.command != "HEAD":
            self.wfile.write(body)


def error(code: str, message: str = "") -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def write_ticket(path: Path, ticket: dict[str, Any]) -> Path:
    path.write_text(json.dumps(ticket))
    return path


class Tunnel(BaseHTTPRequestHandler):
    """An HTTP proxy that knows CONNECT alone."""

    seen: list[tuple[str, str | None]]

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.seen.append((self.path, self.headers.get("Proxy-Authorization")))
        host, port = self.path.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            back = threading.Thread(target=self._pump, args=(far, self.connection), daemon=True)
            back.start()
            self._pump(self.connection, far)
            back.join(5)
        self.close_connection = True

    @staticmethod
    def _pump(near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
            far.shutdown(socket.SHUT_WR)

    @classmethod
    @contextlib.contextmanager
    def serving(cls) -> Iterator[int]:
        cls.seen = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), cls)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            server.server_close()
