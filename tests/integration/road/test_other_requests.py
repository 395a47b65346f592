"""Faults beside the parts: at the completion, at the look at the object, at the name's resolution, and between runs."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest
from tests.integration.road.fault_proxy import FaultProxy
from tests.integration.road.faults import FAULTS
from tests.integration.road.judging import FINAL_AT_ONCE, OLD, WHERE, an_upload, check_words, part_at, patience_for, renewing
from tests.integration.road.stores import RealStore
from tests.unit.mover.clocks import QuickClock

from stagecoach.mover.stagecoach_mover import Line, Road, fetch, put

AT_THE_COMPLETION = {
    "reset-before-body": "store_unreachable",
    "reset-within-body": "store_unreachable",
    "reset-after-body": "store_unreachable",
    "stall-after-body": "store_unreachable",
    "500": "store_unreachable",
    "SlowDown": "store_unreachable",
    "429-Retry-After": "store_unreachable",
    "200-with-error": "store_unreachable",
    "expired": "ticket_expired",
    "answered-twice": None,
    "hangs-up-after-answer": None,
    "proxy-502": "store_unreachable",
    "proxy-407": "store_refused",
}


@pytest.mark.parametrize("often", ["once", "for-ever"])
@pytest.mark.parametrize("fault", AT_THE_COMPLETION)
def test_a_fault_at_the_completion_publishes_all_or_nothing(
    fault: str, often: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_for(fault, often == "for-ever", monkeypatch)
    content = data[-store.part_size_bytes :]
    proxy.spoil(fault, "POST", times=1 if often == "once" else None)
    with an_upload(store, content, folder) as (key, ticket, again):
        receipt = put(ticket, clock=QuickClock(), reload_ticket=renewing(again))

        assert proxy.injected >= 1
        code = AT_THE_COMPLETION[fault] if often == "for-ever" or fault in FINAL_AT_ONCE else None
        check_words(receipt, code)
        assert store.content(key) == (content if code is None else None)


@pytest.mark.parametrize("fault", ["503-Retry-After", "429-Retry-After"])
def test_the_pause_that_a_store_asks_for_is_kept(
    fault: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path
) -> None:
    clock = QuickClock()
    proxy.spoil(fault, "GET", 1)
    check_words(fetch(store.fetch_ticket("given", folder / "target", len(data)), clock=clock), None)
    assert clock.pauses == [7.0 + 1.0]


@pytest.mark.parametrize("fault", ["answered-twice", "hangs-up-after-answer"])
def test_a_connection_that_is_not_as_it_was_left_is_not_used_again(
    fault: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path
) -> None:
    urls = store.fetch_ticket("given", folder / "target", len(data))["object"]
    line = Line(Road(), QuickClock(), threading.Event())
    proxy.spoil(fault, "HEAD")
    assert line.ask("HEAD", urls["head_url"]).read() == b""
    assert proxy.spoiled.wait(10)
    response = line.ask("GET", urls["get_url"], {"Range": "bytes=5-9"})
    assert line.read_all(response) == data[5:10]
    line.drop()


@pytest.mark.parametrize("fault", ["answer-lost", "held-back"])
def test_a_completion_whose_answer_is_lost_is_recognised(
    fault: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_for(fault, False, monkeypatch)
    content = data[-store.part_size_bytes :]
    proxy.spoil(fault, "POST")
    with an_upload(store, content, folder) as (key, ticket, _):
        receipt = put(ticket, clock=QuickClock())

        proxy.wait_for_late_requests()
        check_words(receipt, None)
        assert receipt["retries"] == 1
        assert store.content(key) == content


def test_a_completion_that_is_never_answered_is_found_done_by_the_next_run(
    store: RealStore, data: bytes, proxy: FaultProxy, folder: Path, tmp_path: Path
) -> None:
    content = data[-store.part_size_bytes :]
    proxy.spoil("answer-lost", "POST", times=None)
    with an_upload(store, content, folder) as (key, ticket, _):
        first = put(ticket, str(tmp_path / "state"), clock=QuickClock())
        check_words(first, "store_unreachable")
        proxy.heal()
        second = put(ticket, str(tmp_path / "state"), clock=QuickClock())

        check_words(second, None)
        assert (second["bytes_moved"], second["bytes_resumed"]) == (0, len(content))
        assert store.content(key) == content


@pytest.mark.parametrize("where", WHERE)
def test_a_part_that_reaches_the_store_late_does_no_harm(
    where: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patience_for("held-back", False, monkeypatch)
    proxy.spoil("held-back", "PUT", part_at(where, store, data))
    with an_upload(store, data, folder) as (key, ticket, _):
        receipt = put(ticket, clock=QuickClock())

        proxy.wait_for_late_requests()
        check_words(receipt, None)
        assert store.content(key) == data


@pytest.mark.parametrize(
    ("fault", "code"), [("503", "store_unreachable"), ("reset-before-body", "store_unreachable"), ("expired", "store_refused")]
)
def test_a_store_that_cannot_be_asked_about_the_object(
    fault: str, code: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path
) -> None:
    target = folder / "target"
    target.write_bytes(OLD)
    ticket = store.fetch_ticket("given", target, len(data))
    proxy.spoil(fault, "HEAD", times=None)
    check_words(fetch(ticket, clock=QuickClock()), code)
    assert target.read_bytes() == OLD
    assert os.listdir(folder) == ["target"]
    proxy.heal()
    proxy.spoil(fault, "HEAD")
    receipt = fetch(ticket, clock=QuickClock(), reload_ticket=renewing(lambda: store.fetch_ticket("given", target, len(data))))
    check_words(receipt, None)
    assert target.read_bytes() == data


@pytest.mark.parametrize("often", ["once", "for-ever"])
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_name_that_is_not_resolved_for_a_while(
    method: str, where: str, often: str, store: RealStore, data: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo
    monkeypatch.delenv("http_proxy", raising=False)
    content = data[-store.part_size_bytes - 1001 :]
    key = f"name-{uuid.uuid4().hex}"
    with FaultProxy(store.address, FAULTS, store.part_size_bytes).serving() as proxy:

        def getaddrinfo(host: str, *more: Any, **named: Any) -> Any:
            if host != "store.test":
                return real(host, *more, **named)
            if proxy.lookups_to_fail > 0:
                proxy.lookups_to_fail -= 1
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return real("127.0.0.1", *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        address = f"store.test:{proxy.port}"
        part = part_at(where, store, content)
        proxy.spoil("name-gone" if often == "once" else "name-gone-for-ever", method, part)
        if method == "GET":
            store.keep(key, content)
            target = folder / "target"
            target.write_bytes(OLD)
            receipt = fetch(store.fetch_ticket(key, target, len(content), address), clock=QuickClock())
            assert target.read_bytes() == (content if often == "once" else OLD)
            store.remove(key, "")
        else:
            with an_upload(store, content, folder, address) as (key, ticket, _):
                receipt = put(ticket, clock=QuickClock())
                assert store.content(key) == (content if often == "once" else None)
    assert proxy.injected == 1
    check_words(receipt, None if often == "once" else "store_unreachable")
    if often == "for-ever":
        assert receipt["message"] == "The store's host name could not be resolved."


@pytest.mark.parametrize("kind", ["fetch", "put"])
def test_what_a_dead_road_stopped_goes_on_when_it_is_open_again(
    kind: str, store: RealStore, data: bytes, proxy: FaultProxy, folder: Path, tmp_path: Path
) -> None:
    state, target = str(tmp_path / "state"), folder / "target"
    target.write_bytes(OLD)
    proxy.spoil("reset-within-body", "GET" if kind == "fetch" else "PUT", part_at("last", store, data), times=None)
    with an_upload(store, data, folder) as (key, ticket, _):
        if kind == "fetch":
            ticket = store.fetch_ticket("given", target, len(data))
        carry = fetch if kind == "fetch" else put
        check_words(carry(ticket, state, clock=QuickClock()), "store_unreachable")
        assert target.read_bytes() == OLD
        proxy.heal()
        receipt = carry(ticket, state, clock=QuickClock())

        check_words(receipt, None)
        assert receipt["bytes_moved"] + receipt["bytes_resumed"] == len(data)
        assert receipt["bytes_resumed"] >= len(data) - 2 * store.part_size_bytes
        assert (target.read_bytes() if kind == "fetch" else store.content(key)) == data
        assert sorted(os.listdir(folder)) == ["source", "target"]
