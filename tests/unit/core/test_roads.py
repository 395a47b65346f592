"""Which road a transfer between nodes takes, and what is worth a notice on the direct one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.unit.core.transfers import NOW as OF_TRANSFERS
from tests.unit.core.transfers import a_transfer

from stagecoach.core.nodes import FIRST_KINDS, CommandKind, Node, kinds_of
from stagecoach.core.roads import RoadChoice, choose_road, is_slow, is_stalled, may_fall_back, seconds_left
from stagecoach.core.transfer import Direction, Road, State, Transfer

NOW = datetime(2030, 5, 17, 12, 0, tzinfo=UTC)
ADDRESS = {"host": "vault.example.org", "port": 8443, "certificate_sha256": "0" * 64}


def download(**changes: object) -> Transfer:
    return a_transfer(Direction.DOWNLOAD, **changes)


def node(name: str, **changes: object) -> Node:
    kinds = tuple(kind.value for kind in CommandKind)
    made = Node(name, "bob", name, NOW, enrolled_at=NOW, last_seen_at=NOW, receiver=ADDRESS, kinds=kinds)
    return replace(made, **changes)  # type: ignore[arg-type]


def chosen(
    source: Node | None, destination: Node | None, wanted: Road | None = None, *, can_seal: bool = True, has_digests: bool = False
) -> RoadChoice:
    return choose_road(source, destination, wanted, now=NOW, offline_after_seconds=90, can_seal=can_seal, has_digests=has_digests)


def test_it_is_direct_where_nothing_is_missing_and_says_what_is() -> None:
    lab, vault = node("lab"), node("vault")
    assert chosen(lab, vault) == RoadChoice(Road.DIRECT)
    assert chosen(replace(lab, receiver=None), vault).is_direct, "who sends needs no address"
    old = NOW - timedelta(seconds=91)
    missing = {
        "bob's node vault tells no address": chosen(lab, replace(vault, receiver=None)),
        "bob's node vault is offline": chosen(lab, replace(vault, last_seen_at=old)),
        "bob's node lab is offline": chosen(replace(lab, last_seen_at=old), vault),
        "bob's node lab has an agent that does not know": chosen(replace(lab, kinds=()), vault),
        "bob's node vault has an agent that does not know": chosen(lab, replace(vault, kinds=("send",))),
        "the same node": chosen(lab, lab),
        "Only from one data transfer node": chosen(lab, None),
        "no key to seal with": chosen(lab, vault, can_seal=False),
        "A digest of the whole file": chosen(lab, vault, has_digests=True),
        "asked for": chosen(lab, vault, Road.STAGED),
    }
    for words, choice in missing.items():
        assert choice.road is Road.STAGED
        assert words in (choice.reason or ""), words


def test_an_agent_that_says_nothing_knows_the_first_kinds_and_one_that_says_much_those_of_ours() -> None:
    assert kinds_of(()) == FIRST_KINDS
    assert kinds_of(("send", "fly")) == {CommandKind.SEND}


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({"road": Road.DIRECT}, True),
        ({"road": Road.DIRECT, "bytes_moved": 1}, False),
        ({"road": Road.DIRECT, "wanted_road": Road.DIRECT}, False),
        ({}, False),
    ],
)
def test_it_falls_back_while_nothing_has_arrived_and_nobody_insists(changes: dict[str, object], may: bool) -> None:
    assert may_fall_back(download(**changes)) is may


def test_a_stall_is_one_until_something_moves_again() -> None:
    leg = download(state=State.MOVING, changed_at=OF_TRANSFERS)
    later = OF_TRANSFERS + timedelta(seconds=60)
    assert not is_stalled(leg, later - timedelta(seconds=1))
    assert is_stalled(leg, later)
    assert not is_stalled(replace(leg, stall_noticed_at=later), later)
    assert is_stalled(replace(leg, stall_noticed_at=later, changed_at=later + timedelta(1)), later + timedelta(2))


@pytest.mark.parametrize(
    ("rate", "probe", "cap", "slow"),
    [(24, 100, None, True), (25, 100, None, False), (24, 100, 90, False), (1, None, None, False)],
)
def test_it_is_slow_by_what_the_way_can_take_or_the_cap(rate: float, probe: float | None, cap: int | None, slow: bool) -> None:
    assert is_slow(download(rate_bytes_per_second=rate, rate_limit_bytes_per_second=cap), probe) is slow


def test_seconds_left_are_told_where_they_can_be() -> None:
    leg = download(state=State.MOVING, size_bytes=100, bytes_moved=40, rate_bytes_per_second=20.0)
    assert seconds_left(leg) == 3.0
    assert seconds_left(replace(leg, rate_bytes_per_second=0.0)) is None
    assert seconds_left(replace(leg, size_bytes=None)) is None
    assert seconds_left(replace(leg, state=State.FAILED)) is None
    relay = replace(leg, source_transfer_id="x", bytes_moved=0, bytes_staged=80)
    assert seconds_left(relay) == 1.0
