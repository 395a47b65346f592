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
