"""What an agent does with ``check_network``: real connections on loopback, and a road that may fail."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.plain_server import plain_server

from stagecoach.agent import checking
from stagecoach.agent.checking import Checker
from stagecoach.agent.journal import Ending
from stagecoach.agent.network_check import Bounds
from stagecoach.agent.network_probes import Endpoint
from stagecoach.agent.network_report import NetworkReport, Verdict
from stagecoach.core.nodes import troubles_of_check
from stagecoach.wire.agent import EndedReport

QUICK = Bounds(timeout_seconds=2.0, connects=2, round_trips=3, probe_bytes=0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def checked(server: str, store: object, place: Path, **options: Any) -> Ending:
    checker = Checker(server, {"receive": place}, bounds=QUICK, **options)
    return await checker.run({"storeUrl": store}, asyncio.Event())


def codes(ending: Ending, way: str, *levels: str) -> list[str]:
    assert ending.result is not None
    return [each["code"] for each in ending.result["ways"][way]["verdicts"] if each["level"] in levels]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.mark.parametrize("closes", [False, True])
async def test_both_ways_are_good(tmp_path: Path, closes: bool) -> None:
    with plain_server(closes=closes) as server:
        ending = await checked(server, f"{server}/with/a/path", tmp_path)
    assert (ending.exit_code, ending.code) == (0, None)
    assert ending.result is not None
    assert set(ending.result["ways"]) == {"service", "store"}
    for way in ("service", "store"):
        found = ending.result["ways"][way]
        assert codes(ending, way, "good", "warning", "failure") == ["good"]
        assert (found["reachable"], found["http_status"], found["tls_version"]) == (True, 403, None)
        assert abs(found["clock_skew_seconds"]) < 2
        # A connection that is closed after one answer leaves none to measure.
        assert found["round_trips"] == (0 if closes else 3)
    assert ending.result["free_bytes"]["receive"] > 0
    EndedReport(instance_id="a" * 16, attempt=1, exit_code=0, result=ending.result)


async def test_a_way_that_is_closed_is_named_and_the_other_is_looked_at_all_the_same(tmp_path: Path) -> None:
    port = closed_port()
    with plain_server() as server:
        ending = await checked(server, f"https://127.0.0.1:{port}", tmp_path)
    assert codes(ending, "service", "failure") == []
    assert codes(ending, "store", "failure") == ["port_closed"]
    assert ending.message == f"127.0.0.1 answers, but nothing listens at port {port}: the store is down, or its address is wrong."
    assert troubles_of_check({"result": ending.result}) == [ending.message]


async def test_what_speaks_no_tls_is_named(tmp_path: Path) -> None:
    with plain_server() as server:
        ending = await checked(server, server.replace("http://", "https://"), tmp_path)
    assert codes(ending, "store", "failure") == ["tls_failed"]


@pytest.mark.parametrize("url", ["ftp://store.example.org", "https://", "https://[::1", "https://store.example.org:99999"])
async def test_an_address_that_is_none(tmp_path: Path, url: str) -> None:
    with plain_server() as server:
        ending = await checked(server, url, tmp_path)
    assert codes(ending, "store", "failure") == ["url_wrong"]


async def test_without_a_store_only_the_service_is_looked_at(tmp_path: Path) -> None:
    with plain_server() as server:
        ending = await checked(server, None, tmp_path)
    assert ending.result is not None
    assert set(ending.result["ways"]) == {"service"}


async def test_a_proxy_is_not_taken_for_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://name:pass-word@127.0.0.1:1")
    with plain_server() as server:
        ending = await checked(server, "https://store.example.org", tmp_path)
    assert codes(ending, "store", "advice") == ["proxied"]
    assert "pass-word" not in json.dumps(ending.result)
    assert codes(ending, "service", "failure") == []


async def test_a_check_that_is_stopped_or_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    def stuck(endpoint: Endpoint, **_: Any) -> NetworkReport:
        held.wait(30)
        return NetworkReport(endpoint.host, endpoint.port)

    monkeypatch.setattr(checking, "check_network", stuck)
    stop = asyncio.Event()
    stop.set()
    try:
        stopped = await Checker("http://127.0.0.1:1", {}).run({}, stop)
        assert (stopped.exit_code, stopped.code) == (143, "interrupted")
        assert (await checked("http://127.0.0.1:1", None, tmp_path, most_seconds=0.05)).code == "check_timeout"
    finally:
        held.set()


async def test_whatever_the_other_end_says_the_report_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(endpoint: Endpoint, **_: Any) -> NetworkReport:
        report = NetworkReport(endpoint.host, endpoint.port, addresses=[f"2001:db8::{n:x}" for n in range(9000)])
        report.verdicts = [Verdict("slow_answers", "warning", "w" * 70_000)]
        return report

    monkeypatch.setattr(checking, "check_network", endless)
    ending = await checked("http://127.0.0.1:1", "http://127.0.0.1:1", tmp_path)
    assert len(ending.message) <= 1000
    EndedReport(instance_id="a" * 16, attempt=1, exit_code=0, message=ending.message, result=ending.result)
