"""The table of states and events: written out here a second time, so that a slip in one of the two is seen."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.errors import Conflict
from stagecoach.core.state_machine import EXPLAINED, TABLE, Event, advance, can, drawing
from stagecoach.core.transfer import ENDS, MEANING, Direction, State

LIFE = Path(__file__).resolve().parents[3] / "docs/life-of-a-transfer.md"
UPLOAD = """
preparing   prepared>receiving failed>failed cancel_asked>cancelling
receiving   completed>staged failed>failed cancel_asked>cancelling expired>expired
staged      released>queued failed>failed cancel_asked>cancelling expired>expired
queued      started>moving resubmitted>queued arrived>done failed>failed cancel_asked>cancelling expired>expired
moving      requeued>queued resubmitted>queued arrived>done failed>failed cancel_asked>cancelling
failed      retry_asked>staged reopened>receiving
cancelling  cancel_done>cancelled cancel_too_late>done
"""
DOWNLOAD = """
preparing   prepared>queued failed>failed cancel_asked>cancelling
queued      started>moving resubmitted>queued arrived>staged failed>failed cancel_asked>cancelling expired>expired
moving      requeued>queued resubmitted>queued arrived>staged failed>failed cancel_asked>cancelling
staged      fetched>done failed>failed cancel_asked>cancelling expired>expired
failed      retry_asked>queued
cancelling  cancel_done>cancelled
"""
WITHIN = """
preparing   prepared>queued failed>failed cancel_asked>cancelling
queued      started>moving resubmitted>queued arrived>done failed>failed cancel_asked>cancelling
moving      requeued>queued resubmitted>queued arrived>done failed>failed cancel_asked>cancelling
failed      retry_asked>queued
cancelling  cancel_done>cancelled cancel_too_late>done
"""
# What has nothing staged is in none of them.
WITHOUT = {
    Direction.UPLOAD: set(),
    Direction.DOWNLOAD: {State.RECEIVING},
    Direction.WITHIN: {State.RECEIVING, State.STAGED, State.EXPIRED},
}


def allowed() -> dict[tuple[Direction, State, Event], State]:
    steps = {}
    for direction, text in ((Direction.UPLOAD, UPLOAD), (Direction.DOWNLOAD, DOWNLOAD), (Direction.WITHIN, WITHIN)):
        for line in text.strip().splitlines():
            first, *rest = line.split()
            for step in rest:
                event, to = step.split(">")
                steps[direction, State(first), Event(event.replace("_", " "))] = State(to)
    return steps


ALLOWED = allowed()
EVERY_STEP = [(direction, state, event) for direction in Direction for state in State for event in Event]


@pytest.mark.parametrize(("direction", "state", "event"), EVERY_STEP)
def test_a_step_is_taken_exactly_when_the_table_has_it(direction: Direction, state: State, event: Event) -> None:
    transfer = a_transfer(direction, state=state)
    to = ALLOWED.get((direction, state, event))
    assert can(transfer, event) is (to is not None)
    if to is not None:
        assert advance(transfer, event, NOW).state is to
    else:
        with pytest.raises(Conflict) as refused:
            advance(transfer, event, NOW)
        assert refused.value.data == {"state": state.value}


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("state", [state for state in State if state not in ENDS and state is not State.CANCELLING])
def test_every_state_on_the_road_can_fail_and_be_cancelled(direction: Direction, state: State) -> None:
    if state not in TABLE[direction]:
        assert state in WITHOUT[direction]
        return
    assert {Event.FAILED, Event.CANCEL_ASKED} <= TABLE[direction][state].keys()


@pytest.mark.parametrize("direction", Direction)
def test_only_a_failed_one_is_ever_taken_up_again(direction: Direction) -> None:
    assert {State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED} == ENDS
    for end in ENDS:
        assert end.is_end
        assert bool(TABLE[direction].get(end)) is (end is State.FAILED)


@pytest.mark.parametrize("direction", Direction)
def test_every_road_reaches_an_end_and_every_state_is_reached(direction: Direction) -> None:
    reached, new = set(), {State.PREPARING}
    while new:
        reached |= new
        new = {to for state in new for to in TABLE[direction].get(state, {}).values()} - reached
    assert reached == set(State) - WITHOUT[direction]
    assert all(TABLE[direction].get(state) for state in reached - ENDS)


def test_every_event_happens_somewhere_and_has_its_sentence() -> None:
    assert {event for steps in TABLE.values() for row in steps.values() for event in row} == set(Event)
    assert set(EXPLAINED) == set(Event)
    assert all(sentence.endswith(".") for sentence in EXPLAINED.values())


@pytest.mark.parametrize("direction", Direction)
def test_the_documents_show_the_table_as_it_is(direction: Direction) -> None:
    drawn = f"```mermaid\n{drawing(direction)}```\n"
    assert drawn in LIFE.read_text(encoding="utf-8"), f"docs/life-of-a-transfer.md should hold:\n{drawn}"


def test_every_state_has_its_sentence() -> None:
    assert set(MEANING) == set(State)
    assert all(sentence.endswith(".") for sentence in MEANING.values())


def test_a_step_keeps_time_and_forgets_what_was_of_the_state_before() -> None:
    before = a_transfer(state=State.QUEUED, failed_looks=3, job_missing_since=NOW, reason="old", code="old")
    later = NOW + timedelta(seconds=5)
    moving = advance(before, Event.STARTED, later)
    assert (moving.changed_at, moving.updated_at, moving.ended_at) == (later, later, None)
    assert (moving.failed_looks, moving.job_missing_since, moving.reason, moving.code) == (0, None, None, None)
    failed = advance(moving, Event.FAILED, later, code="job_failed", reason="It broke.")
    assert (failed.ended_at, failed.code, failed.reason) == (later, "job_failed", "It broke.")
    assert not failed.cleaned
