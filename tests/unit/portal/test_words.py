"""Numbers, times and roads as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from stagecoach.core.state_machine import TABLE
from stagecoach.core.transfer import MEANING, Direction, State
from stagecoach.portal import roads, words
from stagecoach.portal.listing import View, crumbs, view_of

NOW = datetime(2030, 5, 17, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_536_000, "1.54 MB"),
        (99_960_000, "100 MB"),
        (500 * 10**9, "500 GB"),
        (5 * 1024**4, "5.50 TB"),
        (10**21, "1000000 PB"),
        (None, "unknown"),
    ],
)
def test_sizes(size: int | None, said: str) -> None:
    assert words.size_words(size) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (-3, "just now"),
        (30, "30 seconds ago"),
        (59.6, "1 minute ago"),
        (3570, "1 hour ago"),
        (-7200, "in 2 hours"),
        (86400 * 29.6, "1 month ago"),
        (86400 * 400, "1 year ago"),
    ],
)
def test_times(seconds: float, said: str) -> None:
    assert words.ago_words(NOW - timedelta(seconds=seconds), NOW) == said


@pytest.mark.parametrize(("part", "whole", "said"), [(0, 0, 100), (1, None, 0), (999, 1000, 99), (1000, 1000, 100), (7, 3, 100)])
def test_a_hundred_percent_is_all_of_it(part: int, whole: int | None, said: int) -> None:
    assert words.percent(part, whole) == said


def transfer(direction: str, state: str, *reached: str) -> dict[str, Any]:
    history = [{"state": each} for each in (*reached, state)]
    return {"direction": direction, "state": state, "history": history, "operation": "mv"}


@pytest.mark.parametrize("direction", list(Direction))
def test_every_state_has_its_words_and_its_place_on_the_road(direction: Direction) -> None:
    for state in set(TABLE[direction]) | {State.DONE, State.CANCELLED, State.EXPIRED}:
        steps = roads.steps(transfer(direction, state, "preparing"))
        assert sum(step.state in {"current", "failed"} for step in steps) == (state is not State.DONE)
        assert roads.STATE_WORDS[state]
    assert set(roads.STATE_WORDS) == set(MEANING)
    assert {state for state in State if state.is_end} == roads.ENDS
    assert set(roads.LIVE) == {state for state in State if not state.is_end}


def test_a_failure_stands_where_it_happened() -> None:
    steps = roads.steps(transfer("upload", "failed", "preparing", "receiving", "staged", "queued", "moving"))
    assert [step.state for step in steps] == ["done", "done", "done", "failed", "ahead"]


NAMES = {"node:1": "lab", "node:2": "archive (bob)"}


def between_nodes(state: str, road: str | None) -> dict[str, Any]:
    """Its source leg has moved 40 of 100 bytes."""
    ends = {"source": {"system": "node:1", "path": "/a"}, "destination": {"system": "node:2", "path": "/b"}}
    sizes = {"sizeBytes": 100, "bytesStaged": 0, "bytesMoved": 7, "system": "node:2"}
    legs = [{"leg": "source", "bytesMoved": 40, "sizeBytes": 100}]
    known = {"road": road} if road is not None else {}
    return transfer("upload", state, "preparing") | ends | sizes | {"legs": legs} | known


def test_a_transfer_between_two_places_has_their_names_and_both_legs() -> None:
    staged = between_nodes("receiving", None)
    assert [(leg.name, leg.done_bytes, leg.is_live) for leg in roads.legs(staged, NAMES)] == [
        ("lab → staging area", 40, True),
        ("Staging area → archive (bob)", 7, False),
    ]
    assert [leg.done_bytes for leg in roads.legs(between_nodes("moving", None), NAMES)] == [100, 7]
    assert roads.state_words(staged) == "Coming from its source"
    assert roads.advice(staged) == ""
    assert roads.between(staged, NAMES) == "from lab to archive (bob)"
    assert roads.between(staged, {}) == "from a node to a node"


def test_the_direct_road_is_one_leg_and_says_so() -> None:
    direct = between_nodes("receiving", "direct")
    assert [(leg.name, leg.done_bytes, leg.size_bytes) for leg in roads.legs(direct, NAMES)] == [("lab → archive (bob)", 40, 100)]
    assert roads.steps(direct)[1] == roads.Step("Straight from node to node", "current")
    assert roads.legs(between_nodes("done", "direct"), NAMES)[0].done_bytes == 100


@pytest.mark.parametrize(
    ("state", "road", "may"),
    [
        ("receiving", "staged", True),
        ("queued", "direct", True),
        ("moving", "direct", False),
        ("queued", "staged", True),
        ("done", "staged", False),
        ("failed", "staged", False),
        ("moving", None, False),
    ],
)
def test_what_is_under_way_can_be_stopped_where_the_service_can(state: str, road: str | None, may: bool) -> None:
    assert roads.may_stop(between_nodes(state, road)) is may
    assert not roads.may_stop(transfer("within", "moving") | {"road": "staged"})
    assert not roads.may_stop(transfer("upload", "receiving") | {"road": "staged"})


@pytest.mark.parametrize("query", [{}, {"page": "2", "sort": "size", "order": "down", "filter": "a b", "hidden": "yes"}])
def test_a_view_is_what_its_address_says(query: dict[str, str]) -> None:
    assert view_of(query).query() == query
    assert view_of({"page": "٣", "sort": "x"}) == View()


def test_crumbs_begin_at_the_file_system_that_holds_the_path() -> None:
    assert crumbs("/scratch/alice/a/b", ["/scratch", "/scratch/alice"]) == [
        ("/scratch/alice", "/scratch/alice"),
        ("a", "/scratch/alice/a"),
        ("b", "/scratch/alice/a/b"),
    ]
    assert crumbs("/etc", ["/home/alice"]) == [("/", "/"), ("etc", "/etc")]


def test_sentences_of_the_service_name_nodes_and_sizes_as_people_do() -> None:
    said = "The file is at its place on node:1, 60000000 bytes, verified; 999 bytes were left."
    assert roads.for_people(said, {"node:1": "Lab"}) == "The file is at its place on Lab, 60.0 MB, verified; 999 bytes were left."
