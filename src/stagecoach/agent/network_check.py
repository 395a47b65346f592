"""Checks the way from this machine to a receiver or the service, step by step, and names the cause of what is wrong.

Blocking and bounded in time and bytes: run it in a thread. It leaves nothing behind at the receiver.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import secrets
import shutil
import socket
import ssl
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from stagecoach.agent.host_advice import host_advice, host_facts
from stagecoach.agent.network_probes import Endpoint, ProbeFailed, connect, handshake, require_name, resolve, talking, tcp_facts
from stagecoach.agent.network_report import NetworkReport
from stagecoach.agent.network_verdicts import verdicts_of
from stagecoach.agent.s3_request_signing import signed_headers

_STALL_SECONDS = 0.2
_PIECE_BYTES = 65_536
_FIRST_PROBE_BYTES = 256 * 1024
_GROWTH = 4
_MAX_ANSWER_BYTES = 65_536
_REFUSED = {401, 403}


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one check. It takes at most about 2 timeouts, the round trips, and ``probe_seconds`` each way."""

    timeout_seconds: float = 10.0
    connects: int = 5
    round_trips: int = 20
    probe_bytes: int = 64 * 2**20
    probe_seconds: float = 5.0
    expected_bytes_per_second: float = 12.5e6


def check_network(
    endpoint: Endpoint,
    *,
    bounds: Bounds | None = None,
    directories: Mapping[str, Path] | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> NetworkReport:
    """``directories``, by the words under which their free space is told. Never raises for what it finds."""
    limits = bounds or Bounds()
    report = NetworkReport(endpoint.host, endpoint.port)
    for name, directory in (directories or {}).items():
        with contextlib.suppress(OSError):
            report.free_bytes[name] = shutil.disk_usage(directory).free
    facts = host_facts()
    report.largest_send_buffer_bytes = facts.largest_send_buffer_bytes
    report.largest_receive_buffer_bytes = facts.largest_receive_buffer_bytes
    try:
        _Check(endpoint, limits, report, now).run()
    except ProbeFailed as failed:
        report.failure = failed.failure
    report.verdicts = verdicts_of(report, expected_bytes_per_second=limits.expected_bytes_per_second)
    report.verdicts += host_advice(facts, round_trip_seconds=report.round_trip_seconds)
    return report


class _Check:
    def __init__(self, endpoint: Endpoint, bounds: Bounds, report: NetworkReport, now: Callable[[], datetime]) -> None:
        self._to = endpoint
        self._bounds = bounds
        self._report = report
        self._now = now

    def run(self) -> None:
        began = time.perf_counter()
        addresses = resolve(self._to.host, self._to.port, self._bounds.timeout_seconds)
        self._report.dns_seconds = time.perf_counter() - began
        self._report.addresses = sorted({str(address[0]) for _, address in addresses})
        connection = self._connect(addresses)
        with talking(connection, self._to) as client:
            self._first_request(client)
            self._round_trips(client)
            try:
                if self._to.access_key_id is not None and self._bounds.probe_bytes:
                    self._probe(client)
            finally:
                if (counted := tcp_facts(connection)) is not None:
                    self._report.path_mtu_bytes = counted.path_mtu_bytes
                    self._report.retransmitted_segments = counted.retransmitted_segments
                    self._report.sent_segments = counted.sent_segments

    def _connect(self, addresses: list[tuple[int, tuple[str | int, ...]]]) -> socket.socket:
        """To the first address that answers; some more connections to it, for their times."""
        failed: ProbeFailed | None = None
        for family, address in addresses:
            try:
                began = time.perf_counter()
                connection = connect(family, address, self._bounds.timeout_seconds)
            except ProbeFailed as failure:
                failed = failure
                continue
            self._report.connect_seconds.append(time.perf_counter() - began)
            if self._to.uses_tls:
                connection = self._handshake(connection, family, address)
            for _ in range(self._bounds.connects - 1):
                self._time_connect(family, address)
            return connection
        raise failed or ProbeFailed("dns", "dns_failed", "it has no address")

    def _handshake(self, connection: socket.socket, family: int, address: tuple[str | int, ...]) -> ssl.SSLSocket:
        began = time.perf_counter()
        secured, shown = handshake(connection, self._to)
        self._report.handshake_seconds = time.perf_counter() - began
        self._report.tls_version = secured.version()
        self._report.certificate_sha256 = hashlib.sha256(shown).hexdigest()
        if self._to.certificate_sha256 is not None:
            try:
                require_name(connect(family, address, self._bounds.timeout_seconds), self._to, shown)
            except ProbeFailed:
                secured.close()
                raise
        return secured

    def _time_connect(self, family: int, address: tuple[str | int, ...]) -> None:
        began = time.perf_counter()
        try:
            connect(family, address, self._bounds.timeout_seconds).close()
        except ProbeFailed:
            self._report.failed_connects += 1
        else:
            self._report.connect_seconds.append(time.perf_counter() - began)

    def _first_request(self, client: http.client.HTTPConnection) -> None:
        """Also looks at the clock and at whether the key is accepted."""
        before = self._now()
        status, date, said = self._ask(client, "HEAD", "request")
        self._report.http_status = status
        if date is not None:
            # The header has whole seconds, cut off.
            between = before + (self._now() - before) / 2
            self._report.clock_skew_seconds = round((date - between).total_seconds() + 0.5, 1)
        if self._to.access_key_id is None:
            return
        if status in _REFUSED:
            raise ProbeFailed("request", "wrong_key", f"HTTP {status}")
        if status >= http.client.BAD_REQUEST:
            raise ProbeFailed("request", "request_failed", f"HTTP {status} {said}".strip())

    def _round_trips(self, client: http.client.HTTPConnection) -> None:
        times = []
        for _ in range(self._bounds.round_trips):
            if client.sock is None:
                break  # the other end answers one request a connection
            began = time.perf_counter()
            self._ask(client, "HEAD", "request")
            times.append(time.perf_counter() - began)
        if not times:
            return
        # Where something between accepts connections itself, only what goes all the way tells the distance.
        nearest = [min(self._report.connect_seconds), min(min(times), self._report.handshake_seconds or min(times))]
        self._report.round_trips = len(times)
        self._report.round_trip_seconds = max(nearest)
        self._report.median_round_trip_seconds = statistics.median(times)
        self._report.longest_round_trip_seconds = max(times)
        self._report.stalls = _stalls(times, self._report.connect_seconds)

    def _probe(self, client: http.client.HTTPConnection) -> None:
        """Sends ever more bytes until one step takes a while, then fetches the last of them, and removes them."""
        path = f"/{self._to.bucket}/.stagecoach-check-{secrets.token_hex(8)}"
        size, deadline, sent = _FIRST_PROBE_BYTES, time.perf_counter() + self._bounds.probe_seconds, False
        try:
            while True:
                size = min(size, self._bounds.probe_bytes)
                seconds = self._put(client, path, size, deadline)
                sent = True
                self._report.put_bytes, self._report.put_bytes_per_second = size, size / seconds
                left = deadline - time.perf_counter()
                if size >= self._bounds.probe_bytes or left < _GROWTH * seconds:
                    break
                size *= _GROWTH
            self._get(client, path, time.perf_counter() + self._bounds.probe_seconds)
        finally:
            if sent:
                self._remove(path)

    def _put(self, client: http.client.HTTPConnection, path: str, size: int, deadline: float) -> float:
        """Seconds until it was acknowledged; one that would take too long is broken off, which leaves nothing there."""
        headers = self._headers("PUT", path)
        piece = os.urandom(_PIECE_BYTES)
        began, left = time.perf_counter(), size
        try:
            client.putrequest("PUT", path, skip_host=True, skip_accept_encoding=True)
            for name, value in {**headers, "content-length": str(size)}.items():
                client.putheader(name, value)
            client.endheaders()
            while left:
                client.send(piece[: min(left, len(piece))])
                left -= min(left, len(piece))
                if left and time.perf_counter() > deadline:
                    self._report.put_bytes = size - left
                    self._report.put_bytes_per_second = (size - left) / (time.perf_counter() - began)
                    raise ProbeFailed("probe", "interrupted", f"{size} bytes took more than {self._bounds.probe_seconds:g} s")
            answer = client.getresponse()
            answer.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ProbeFailed("probe", "interrupted", type(error).__name__) from error
        if answer.status != http.client.OK:
            raise ProbeFailed("probe", "request_failed", f"HTTP {answer.status} to a PUT")
        return time.perf_counter() - began

    def _get(self, client: http.client.HTTPConnection, path: str, deadline: float) -> None:
        began = time.perf_counter()
        try:
            client.request("GET", path, headers=self._headers("GET", path))
            answer = client.getresponse()
            while piece := answer.read(_PIECE_BYTES):
                self._report.get_bytes += len(piece)
                if time.perf_counter() > deadline:
                    break
        except (OSError, http.client.HTTPException) as error:
            raise ProbeFailed("probe", "interrupted", type(error).__name__) from error
        self._report.get_bytes_per_second = self._report.get_bytes / (time.perf_counter() - began)

    def _remove(self, path: str) -> None:
        """On a connection of its own: the other one may be in the middle of something."""
        for family, address in resolve(self._to.host, self._to.port, self._bounds.timeout_seconds)[:1]:
            secured, _ = handshake(connect(family, address, self._bounds.timeout_seconds), self._to)
            with talking(secured, self._to) as client:
                try:
                    client.request("DELETE", path, headers=self._headers("DELETE", path))
                    client.getresponse().read(_MAX_ANSWER_BYTES)
                except (OSError, http.client.HTTPException) as error:
                    raise ProbeFailed("probe", "interrupted", f"{path} may be left: {type(error).__name__}") from error

    def _ask(self, client: http.client.HTTPConnection, method: str, step: str) -> tuple[int, datetime | None, str]:
        """One small request; status, the other end's time, its reason."""
        path = f"/{self._to.bucket}" if self._to.access_key_id is not None else "/"
        try:
            client.request(method, path, headers=self._headers(method, path))
            answer = client.getresponse()
            answer.read(_MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ProbeFailed(step, "request_failed", type(error).__name__) from error
        date = None
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            date = parsedate_to_datetime(answer.getheader("Date") or "")
        return answer.status, date if date is None or date.tzinfo else date.replace(tzinfo=UTC), answer.reason

    def _headers(self, method: str, path: str) -> dict[str, str]:
        if self._to.access_key_id is None or self._to.secret_access_key is None:
            return {"host": self._to.host_header}
        return signed_headers(
            method,
            self._to.host_header,
            path,
            access_key_id=self._to.access_key_id,
            secret_access_key=self._to.secret_access_key,
            now=self._now(),
        )


def _stalls(round_trips: list[float], connects: list[float]) -> int:
    """Those that stood still. Where most answers are late the other end is busy; connections its kernel answers at once."""
    late = sum(taken > min(round_trips) + _STALL_SECONDS for taken in round_trips)
    return (late if late <= len(round_trips) // 2 else 0) + sum(taken > min(connects) + _STALL_SECONDS for taken in connects)
