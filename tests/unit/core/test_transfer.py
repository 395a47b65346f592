"""The table of states: written out here a second time, so that a slip in one of the two is seen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.errors import Conflict
from stagecoach.core.transfer import ENDS, FOLLOWS, MEANING, Direction, State, advance

UPLOAD = """
preparing   receiving failed cancelling
receiving   staged failed cancelling expired
staged      queued failed cancelling expired
queued      moving done failed cancelling expired
moving      queued done failed cancelling
cancelling  cancelled done
"""
DOWNLOAD = """
preparing   queued failed cancelling
queued      moving staged failed cancelling expired
moving      queued staged failed cancelling
staged      done failed cancelling expired
cancelling  cancelled
"""


def allowed() -> set[tuple[Direction, State, State]]:
    steps = set()
    for direction, text in ((Direction.UPLOAD, UPLOAD), (Direction.DOWNLOAD, DOWNLOAD)):
        for line in text.strip().splitlines():
            first, *rest = line.split()
            steps |= {(direction, State(first), State(to)) for to in rest}
    return steps


ALLOWED = allowed()
EVERY_STEP = [(direction, state, to) for direction in Direction for state in State for to in State]


@pytest.mark.parametrize(("direction", "state", "to"), EVERY_STEP)
def test_a_step_is_taken_exactly_when_the_table_has_it(direction: Direction, state: State, to: State) -> None:
    transfer = a_transfer(direction, state=state)
    if (direction, state, to) in ALLOWED:
        assert advance(transfer, to, NOW).state is to
    else:
        with pytest.raises(Conflict) as refused:
            advance(transfer, to, NOW)
        assert refused.value.data == {"state": state.value}


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("state", [state for state in State if state not in ENDS and state is not State.CANCELLING])
def test_every_state_on_the_road_can_fail_and_be_cancelled(direction: Direction, state: State) -> None:
    if state not in FOLLOWS[direction]:
        assert (direction, state) == (Direction.DOWNLOAD, State.RECEIVING)
        return
    assert {State.FAILED, State.CANCELLING} <= FOLLOWS[direction][state]


@pytest.mark.parametrize("direction", Direction)
def test_ends_lead_nowhere(direction: Direction) -> None:
    assert {State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED} == ENDS
    for end in ENDS:
        assert end.is_end
        assert not FOLLOWS[direction].get(end)


@pytest.mark.parametrize("direction", Direction)
def test_every_road_reaches_an_end_and_every_state_is_reached(direction: Direction) -> None:
    reached, new = set(), {State.PREPARING}
    while new:
        reached |= new
        new = {to for state in new for to in FOLLOWS[direction].get(state, frozenset())} - reached
    assert reached == set(State) - ({State.RECEIVING} if direction is Direction.DOWNLOAD else set())
    assert all(FOLLOWS[direction].get(state) for state in reached - ENDS)


def test_every_state_has_its_sentence() -> None:
    assert set(MEANING) == set(State)
    assert all(sentence.endswith(".") for sentence in MEANING.values())


def test_a_step_keeps_time_and_forgets_what_was_of_the_state_before() -> None:
    before = a_transfer(state=State.QUEUED, failed_looks=3, job_missing_since=NOW, reason="old", code="old")
    later = NOW + timedelta(seconds=5)
    moving = advance(before, State.MOVING, later)
    assert (moving.changed_at, moving.updated_at, moving.ended_at) == (later, later, None)
    assert (moving.failed_looks, moving.job_missing_since, moving.reason, moving.code) == (0, None, None, None)
    failed = advance(moving, State.FAILED, later, code="job_failed", reason="It broke.")
    assert (failed.ended_at, failed.code, failed.reason) == (later, "job_failed", "It broke.")
    assert not failed.cleaned
