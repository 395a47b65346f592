"""Every fault of the road to a real store, at the first, a middle and the last part, both ways, once and for ever.

A transfer ends byte-exact, or as a clean failure: the old target whole, nothing hidden beside it, nothing published.
A file that is called done and differs is what must never be seen.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from tests.integration.road.fault_proxy import FaultProxy
from tests.integration.road.judging import FINAL_AT_ONCE, OLD, WHERE, an_upload, check_words, part_at, patience_for, renewing
from tests.integration.road.stores import RealStore
from tests.unit.mover.clocks import QuickClock

from stagecoach.mover.stagecoach_mover import fetch, put

# What the receipt says when the fault never ends; None: the mover gets through all the same.
BOTH_WAYS = {
    "reset-before-body": "store_unreachable",
    "reset-within-body": "store_unreachable",
    "stall-before-body": "store_unreachable",
    "stall-within-body": "store_unreachable",
    "cut-short": "store_unreachable",
    "flipped-byte": "digest_mismatch",
    "shifted-body": "digest_mismatch",
    "500": "store_unreachable",
    "500-early": "store_unreachable",
    "503": "store_unreachable",
    "SlowDown": "store_unreachable",
    "503-Retry-After": "store_unreachable",
    "429": "store_unreachable",
    "429-Retry-After": "store_unreachable",
    "expired": "ticket_expired",
    "answered-twice": None,
    "hangs-up-after-answer": None,
    "proxy-502": "store_unreachable",
    "proxy-407": "store_refused",
}
WHILE_FETCHING = {
    **BOTH_WAYS,
    "reset-after-body": None,
    "shorter-body": "store_refused",
    "longer-body": "store_refused",
    "200-with-error": "store_unreachable",
    "whole-object": "store_refused",
    "wrong-Content-Range": "store_refused",
    "chunked": None,
    "chunked-and-cut": "store_unreachable",
}
WHILE_PUTTING = {
    **BOTH_WAYS,
    "reset-after-body": "store_unreachable",
    "stall-after-body": "store_unreachable",
    "shorter-body": "digest_mismatch",
    "longer-body": "digest_mismatch",
    "200-with-error": "store_unreachable",
    "answer-lost": "store_unreachable",
}
# `rclone serve s3` cannot replace a part that it has passed on already, and says so: 501, and the upload is lost.
OTHER_BYTES_REACH_THE_STORE = {"flipped-byte", "shifted-body", "shorter-body", "longer-body"}


def cases(faults: dict[str, str | None]) -> list[Any]:
    """All of them where parts are small. The gateway keeps what it was sent for a while, so it sees fewer."""
    chosen = list(itertools.product(["rclone"], faults, WHERE, ["once", "for-ever"]))
    chosen += itertools.product(["rgw"], faults, ["last"], ["once", "for-ever"])
    return [pytest.param(*case, id="-".join(case)) for case in chosen]


@pytest.mark.parametrize(("store", "fault", "where", "often"), cases(WHILE_FETCHING), indirect=["store"])
def test_a_fetch_is_exact_or_fails_clean(
    fault: str,
    where: str,
    often: str,
    store: RealStore,
    data: bytes,
    proxy: FaultProxy,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience_for(fault, often == "for-ever", monkeypatch)
    target = folder / "target"
    target.write_bytes(OLD)
    proxy.spoil(fault, "GET", part_at(where, store, data), times=1 if often == "once" else None)

    def ticket() -> dict[str, Any]:
        return store.fetch_ticket("given", target, len(data))

    receipt = fetch(ticket(), clock=QuickClock(), reload_ticket=renewing(ticket))

    assert proxy.injected >= 1
    code = WHILE_FETCHING[fault] if often == "for-ever" or fault in FINAL_AT_ONCE else None
    check_words(receipt, code)
    assert target.read_bytes() == (data if code is None else OLD)
    assert os.listdir(folder) == ["target"]


@pytest.mark.parametrize(("store", "fault", "where", "often"), cases(WHILE_PUTTING), indirect=["store"])
def test_a_put_is_exact_or_publishes_nothing(
    fault: str,
    where: str,
    often: str,
    store: RealStore,
    data: bytes,
    proxy: FaultProxy,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    patience_for(fault, often == "for-ever", monkeypatch)
    proxy.spoil(fault, "PUT", part_at(where, store, data), times=1 if often == "once" else None)
    with an_upload(store, data, folder) as (key, ticket, again):
        receipt = put(ticket, clock=QuickClock(), reload_ticket=renewing(again))

        assert proxy.injected >= 1
        code = WHILE_PUTTING[fault] if often == "for-ever" or fault in FINAL_AT_ONCE else None
        if fault in OTHER_BYTES_REACH_THE_STORE and store.takes_small_parts and receipt["code"] == "store_refused":
            code = "store_refused"
        check_words(receipt, code)
        assert store.content(key) == (data if code is None else None)
