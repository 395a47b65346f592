"""The network check against a real receiver, straight and by way of bad lines: each fault is called by its name."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.integration.agent.bad_line import BadLine, Faults
from tests.integration.agent.conftest import HOST

from stagecoach.agent.network_check import Bounds, check_network
from stagecoach.agent.network_probes import Endpoint, ProbeFailed, pinned_certificate
from stagecoach.agent.network_report import NetworkReport
from stagecoach.agent.receiver import Receiver

MIB = 2**20
BOUNDS = Bounds(
    timeout_seconds=5.0, connects=3, round_trips=10, probe_bytes=4 * MIB, probe_seconds=3.0, expected_bytes_per_second=1e6
)


@pytest.fixture
async def endpoint(receiver: Receiver, receive: Path) -> Endpoint:
    key = await receiver.open_key(receive / "run 1")
    return Endpoint(HOST, receiver.port, receiver.certificate.sha256, key.access_key_id, key.secret_access_key)


async def check(endpoint: Endpoint, bounds: Bounds = BOUNDS) -> NetworkReport:
    return await asyncio.wait_for(asyncio.to_thread(check_network, endpoint, bounds=bounds), 60)


def causes(report: NetworkReport) -> list[str]:
    return [verdict.code for verdict in report.verdicts if verdict.level in {"failure", "warning"}]


async def test_a_good_line_is_measured_and_nothing_is_left_behind(endpoint: Endpoint, receive: Path, tmp_path: Path) -> None:
    report = await asyncio.to_thread(check_network, endpoint, bounds=BOUNDS, directories={"receive": receive})
    assert report.reachable
    assert causes(report) == []
    assert report.verdicts[0].code == "good"
    assert report.addresses == [HOST]
    assert report.http_status == 200
    assert report.tls_version == "TLSv1.3"
    assert report.clock_skew_seconds is not None
    assert abs(report.clock_skew_seconds) < 2
    assert report.put_bytes >= 256 * 1024
    assert report.get_bytes > 0
    assert report.put_bytes_per_second is not None
    assert report.put_bytes_per_second > 0
    assert report.free_bytes["receive"] > 0
    assert report.sent_segments is not None
    assert report.sent_segments > 0
    assert not list((receive / "run 1").iterdir())
    said = json.dumps(report.as_json())
    assert endpoint.secret_access_key is not None
    assert endpoint.secret_access_key not in said + repr(endpoint)
    assert json.loads(said)["reachable"] is True


async def test_distance_is_called_latency(endpoint: Endpoint) -> None:
    async with BadLine(endpoint.port, Faults(delay_seconds=0.04, window_bytes=16 * 1024)) as line:
        report = await check(replace(endpoint, port=line.port))
    assert report.round_trip_seconds is not None
    assert 0.08 <= report.round_trip_seconds < 0.2
    assert "latency" in causes(report)
    assert "loss" not in causes(report)


async def test_packets_that_are_lost_are_called_loss(endpoint: Endpoint) -> None:
    async with BadLine(endpoint.port, Faults(stall_chance=0.15, stall_seconds=0.5)) as line:
        report = await check(replace(endpoint, port=line.port), replace(BOUNDS, round_trips=20))
    assert report.stalls >= 2
    assert causes(report) == ["loss"]


async def test_a_narrow_line_is_called_slow(endpoint: Endpoint) -> None:
    async with BadLine(endpoint.port, Faults(bytes_per_second=400e3, window_bytes=4096)) as line:
        report = await check(replace(endpoint, port=line.port))
    assert causes(report)[-1] == "slow"
    assert "latency" not in causes(report)
    assert "loss" not in causes(report)


async def test_a_closed_port_is_told_from_a_wall(endpoint: Endpoint) -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        report = await check(replace(endpoint, port=unused.getsockname()[1]))
    assert causes(report) == ["port_closed"]
    assert report.failure is not None
    assert report.failure.step == "tcp"


@pytest.fixture
def full_port() -> Iterator[int]:
    """Where nobody accepts and the queue is full, so that the kernel drops what comes, as a firewall does."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen(0)
        waiting = []
        for _ in range(8):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
            waiting.append(client)
        yield int(listening.getsockname()[1])
        for client in waiting:
            client.close()


async def test_a_wall_is_told_from_a_closed_port(endpoint: Endpoint, full_port: int) -> None:
    began = time.monotonic()
    report = await check(replace(endpoint, port=full_port), replace(BOUNDS, timeout_seconds=1.0))
    assert causes(report) == ["no_answer"]
    assert time.monotonic() - began < 10


async def test_an_unknown_name_is_a_failure_of_dns(endpoint: Endpoint) -> None:
    report = await check(replace(endpoint, host="no-such-host.invalid"))
    assert causes(report) == ["dns_failed"]


async def test_another_certificate_is_never_shown_the_key(endpoint: Endpoint) -> None:
    report = await check(replace(endpoint, certificate_sha256="0" * 64))
    assert causes(report) == ["wrong_certificate"]
    assert report.http_status is None
    report = await check(replace(endpoint, certificate_sha256=None))
    assert causes(report) == ["wrong_certificate"]


async def test_the_right_certificate_for_another_name_is_told_before_rclone_refuses_it(tmp_path: Path, receive: Path) -> None:
    async with Receiver(tmp_path / "other", receive_directory=receive, host=HOST, port=0, names=["node.example"]) as other:
        report = await check(Endpoint(HOST, other.port, other.certificate.sha256))
    assert causes(report) == ["wrong_certificate"]
    assert "mismatch" in report.verdicts[0].words


async def test_a_wrong_key_is_not_a_wrong_clock(endpoint: Endpoint) -> None:
    for changed in ({"secret_access_key": "another-secret"}, {"access_key_id": "SCNOBODY"}):
        report = await check(replace(endpoint, **changed))
        assert causes(report) == ["wrong_key"]
        assert report.http_status == 403


async def test_a_wrong_clock_is_not_a_wrong_key(endpoint: Endpoint) -> None:
    report = await asyncio.to_thread(check_network, endpoint, bounds=BOUNDS, now=lambda: datetime.now(UTC) - timedelta(hours=2))
    assert causes(report) == ["clock_wrong"]
    assert report.clock_skew_seconds == pytest.approx(7200, abs=5)


async def test_what_speaks_no_tls_is_called_so() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        report = await check(Endpoint(HOST, server.sockets[0].getsockname()[1]))
    assert causes(report) == ["tls_failed"]


async def test_a_certificate_is_fetched_only_by_its_fingerprint(endpoint: Endpoint, receiver: Receiver) -> None:
    pem = await asyncio.to_thread(pinned_certificate, endpoint, 5.0)
    assert pem.split() == receiver.certificate.certificate_file.read_text().split()
    with pytest.raises(ProbeFailed):
        await asyncio.to_thread(pinned_certificate, replace(endpoint, certificate_sha256="1" * 64), 5.0)
