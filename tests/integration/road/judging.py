"""What the tests of the road have in common: tickets, where a fault strikes, and what a receipt may say."""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.road.stores import RealStore

from stagecoach.mover import stagecoach_mover

STALL_SECONDS = 0.75
FINAL_AT_ONCE = {"proxy-407"}
OLD = b"the old content"
WHERE = ["first", "middle", "last"]


def part_at(where: str, store: RealStore, data: bytes) -> int:
    count = -(-len(data) // store.part_size_bytes)
    return {"first": 1, "middle": (count + 1) // 2, "last": count}[where]


def patience_for(fault: str, for_ever: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault.startswith("stall") or fault == "held-back":
        monkeypatch.setenv("STAGECOACH_STALL_SECONDS", str(STALL_SECONDS))
    monkeypatch.setattr(stagecoach_mover, "MOST_RENEWALS", 5)
    if fault.startswith("stall") and for_ever:
        monkeypatch.setattr(stagecoach_mover, "ATTEMPTS_PER_REQUEST", 2)


def check_words(receipt: dict[str, Any], code: str | None) -> None:
    assert receipt["code"] == code, receipt
    assert receipt["ok"] is (code is None)
    assert "://" not in receipt["message"]
    assert "Signature" not in receipt["message"]
    assert "mover failed" not in receipt["message"]


@contextlib.contextmanager
def an_upload(
    store: RealStore, data: bytes, folder: Path, address: str | None = None
) -> Iterator[tuple[str, dict[str, Any], Callable[[], dict[str, Any]]]]:
    """A key that holds nothing yet, a ticket to put the data there, and a way to the same ticket signed again."""
    source = folder / "source"
    source.write_bytes(data)
    key = uuid.uuid4().hex
    upload = store.begin(key)
    try:
        yield (
            key,
            store.put_ticket(upload, key, source, len(data), address),
            lambda: store.put_ticket(upload, key, source, len(data), address),
        )
    finally:
        store.remove(key, upload)


def renewing(ticket: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """Tickets whose addresses differ each time, as those of a service do that signs at another second."""
    count = itertools.count()

    def renew() -> dict[str, Any]:
        fresh = ticket()
        there = fresh.get("object") or fresh["upload"]
        there["head_url"] += f"#{next(count)}"
        return fresh

    return renew
