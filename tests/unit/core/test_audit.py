"""What may be called an orphan, and what may not: judgements over rows and things, without anything outside."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core import names
from stagecoach.core.audit import Kind, Thing, why_broken, why_orphan, why_stuck
from stagecoach.core.transfer import Direction, State, Transfer

ID = names.new_transfer_id((NOW - timedelta(days=1)).timestamp(), lambda bits: 7)
OLD = NOW - timedelta(hours=12)
THINGS = [kind for kind in Kind if kind.value in {"object", "multipart", "job", "job_directory", "temporary_file"}]


def thing(kind: Kind, **changes: Any) -> Thing:
    return replace(Thing(kind, "place", "name", ID, "alice", OLD), **changes)


def over(**changes: Any) -> Transfer:
    row = a_transfer(id=ID, created_at=OLD, updated_at=OLD, changed_at=OLD, state=State.DONE, cleaned=True)
    return replace(row, **changes)


def judged(it: Thing, row: Transfer | None, *, began_at: datetime = NOW, grace_seconds: float = 300) -> str | None:
    return why_orphan(it, row, NOW, began_at, grace_seconds)


@pytest.mark.parametrize("kind", THINGS)
def test_a_thing_of_a_cleaned_transfer_or_of_none_is_an_orphan(kind: Kind) -> None:
    assert judged(thing(kind), over()) == "its transfer has ended (done) and was cleaned"
    assert judged(thing(kind), None) == "the database knows no such transfer"


@pytest.mark.parametrize("kind", THINGS)
@pytest.mark.parametrize("state", State)
def test_a_thing_of_a_transfer_that_is_not_cleaned_is_needed(kind: Kind, state: State) -> None:
    assert judged(thing(kind), over(state=state, cleaned=False)) is None


@pytest.mark.parametrize("kind", THINGS)
def test_nothing_young_is_an_orphan(kind: Kind) -> None:
    young = thing(kind, made_at=NOW - timedelta(seconds=299))
    assert judged(young, None) is judged(young, over()) is judged(thing(kind), over(updated_at=young.made_at)) is None
    assert judged(young, None, grace_seconds=298) is not None
    assert judged(young, over(), grace_seconds=298) is not None


@pytest.mark.parametrize("kind", THINGS)
def test_what_began_during_the_audit_is_not_judged(kind: Kind) -> None:
    assert judged(thing(kind), over(created_at=OLD), began_at=OLD, grace_seconds=0) is None


def test_a_thing_that_tells_no_time_is_as_old_as_its_id() -> None:
    untold = thing(Kind.JOB, made_at=None)
    assert untold.age_seconds(NOW) == pytest.approx(86400, abs=0.01)
    assert judged(untold, None, grace_seconds=86_300) is not None
    assert judged(untold, None, grace_seconds=86_500) is None


def test_staged_data_waits_for_the_last_look_of_the_worker() -> None:
    row = over(next_check_at=NOW)
    assert judged(thing(Kind.OBJECT), row) is judged(thing(Kind.MULTIPART), row) is None
    assert judged(thing(Kind.JOB_DIRECTORY), row) is not None


def test_only_a_second_job_that_is_older_than_a_submission_takes_is_an_orphan_of_a_living_transfer() -> None:
    row = over(state=State.QUEUED, cleaned=False, job_id="7", attempt=2)
    second = thing(Kind.JOB, name="6", attempt=2)
    assert judged(second, row) == "another job (7) carries the transfer"
    assert judged(replace(second, attempt=1), row) is not None
    for needed in (replace(second, name="7"), replace(second, attempt=3), replace(second, made_at=NOW - timedelta(seconds=200))):
        assert judged(needed, row, grace_seconds=0) is None
    assert judged(second, replace(row, job_id=None)) is None


def test_what_a_check_left_goes_after_an_hour() -> None:
    left = thing(Kind.OBJECT, is_of_check=True)
    assert judged(left, None) is not None
    assert judged(replace(left, made_at=NOW - timedelta(minutes=59)), None, grace_seconds=0) is None


UP, DOWN = Direction.UPLOAD, Direction.DOWNLOAD


@pytest.mark.parametrize(
    ("direction", "state", "with_object", "with_multipart", "with_nothing"),
    [
        (UP, State.PREPARING, True, True, True),
        (UP, State.RECEIVING, True, True, False),
        (UP, State.STAGED, True, False, False),
        (UP, State.QUEUED, True, False, False),
        (UP, State.MOVING, True, False, False),
        (UP, State.FAILED, True, True, True),
        (DOWN, State.PREPARING, True, True, True),
        (DOWN, State.QUEUED, True, True, False),
        (DOWN, State.MOVING, True, True, False),
        (DOWN, State.STAGED, True, False, False),
        (DOWN, State.CANCELLING, True, True, True),
        (DOWN, State.DONE, True, True, True),
    ],
)
def test_what_the_store_must_hold_in_each_state(
    direction: Direction, state: State, with_object: bool, with_multipart: bool, with_nothing: bool
) -> None:
    row = a_transfer(direction, state=state)
    assert (why_broken(row, has_object=True, has_multipart=False) is None) is with_object
    assert (why_broken(row, has_object=False, has_multipart=True) is None) is with_multipart
    assert (why_broken(row, has_object=False, has_multipart=False) is None) is with_nothing


def stuck(row: Transfer) -> tuple[str, bool] | None:
    return why_stuck(row, NOW, lease_seconds=30, job_lost_seconds=120)


def test_a_row_that_nobody_will_look_at_is_stuck_and_can_be_woken() -> None:
    for row in (over(state=State.MOVING, cleaned=False), over(cleaned=False)):
        found = stuck(row)
        assert found is not None
        assert found[1]
    assert stuck(over()) is None
    assert stuck(over(state=State.MOVING, cleaned=False, updated_at=NOW - timedelta(seconds=200))) is None


def test_a_row_that_is_long_due_is_stuck() -> None:
    due = over(state=State.MOVING, cleaned=False, next_check_at=OLD)
    assert stuck(due) == ("it is long due and no worker takes it (does one run?)", False)
    assert stuck(replace(due, lease_until=OLD)) is not None
    assert stuck(replace(due, lease_until=NOW + timedelta(seconds=10))) is None
    assert stuck(replace(due, next_check_at=NOW - timedelta(minutes=14))) is None
    assert stuck(replace(due, next_check_at=NOW + timedelta(days=9))) is None


def test_a_lease_that_ends_far_ahead_is_stuck_and_can_be_ended() -> None:
    held = over(state=State.MOVING, cleaned=False, next_check_at=NOW, lease_until=NOW + timedelta(hours=2))
    assert stuck(held) == ("a worker holds it until a time far ahead (was a clock wrong?)", True)


def test_an_ended_row_that_cannot_be_cleaned_is_told_unless_it_is_kept_for_a_retry() -> None:
    row = over(state=State.FAILED, cleaned=False, next_check_at=NOW, failed_looks=9)
    found = stuck(row)
    assert found is not None
    assert "9 looks failed" in found[0]
    assert stuck(replace(row, retry_until=NOW + timedelta(days=1))) is None
    assert stuck(replace(row, changed_at=NOW - timedelta(minutes=50))) is None


def test_a_job_that_stays_unknown_is_told() -> None:
    row = over(state=State.QUEUED, cleaned=False, next_check_at=NOW, job_id="7", job_missing_since=OLD)
    assert stuck(row) == ("its job 7 is long unknown to the scheduler", False)
    assert stuck(replace(row, job_missing_since=NOW - timedelta(seconds=500))) is None
    assert stuck(replace(row, state=State.RECEIVING)) is None
