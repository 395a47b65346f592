"""What a relay takes over of its leg, and when a leg is needed no more."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.core.transfers import NOW, a_transfer

from stagecoach.core.errors import Conflict
from stagecoach.core.relays import last_event, needs_its_leg, require_no_leg, with_object_of, with_progress_of
from stagecoach.core.state_machine import Event, can
from stagecoach.core.transfer import ENDS, Archive, Direction, State, Transfer

LEG_ID = "0123456789abcdefghjkmnpqrt"
OF_STORE, OF_SOURCE, PLAIN = "1" * 32 + "-2", "2" * 32 + "-2", "3" * 32
LATER = NOW + timedelta(days=5)


def relay(**changes: object) -> Transfer:
    return a_transfer(Direction.UPLOAD, source_transfer_id=LEG_ID, source_system="bora", **changes)


def leg(**changes: object) -> Transfer:
    return a_transfer(Direction.DOWNLOAD, id=LEG_ID, relay_of="x", **{"state": State.STAGED, "expires_at": LATER, **changes})


def test_size_and_cut_are_those_of_the_object_that_was_measured() -> None:
    measured = leg(archive=Archive.TAR, size_bytes=1000, part_size_bytes=100, part_count=4)
    staged = with_object_of(relay(size_bytes=None, part_size_bytes=7, part_count=1), measured)
    # Four parts at most were offered, so they are three times as large.
    assert (staged.size_bytes, staged.part_size_bytes, staged.part_count) == (1000, 300, 4)
    assert staged.plan == measured.plan
    assert (staged.bytes_staged, staged.expires_at, staged.object_key) == (1000, LATER, f"{LEG_ID}/data")


@pytest.mark.parametrize(
    ("of_store", "of_source", "taken"),
    [
        (f'"{OF_STORE}"', OF_STORE, OF_STORE),
        (f'"{OF_STORE}"', None, OF_STORE),
        # A store that encrypts with keys of its own: its ETag is nothing that the parts add up to, and the only one it knows.
        (f'"{OF_STORE}"', OF_SOURCE, OF_STORE),
        # Stores that keep none, or the MD5 of the whole: then what the source has read of each part says more.
        ("", OF_SOURCE, OF_SOURCE),
        (None, OF_SOURCE, OF_SOURCE),
        (f'"{PLAIN}"', OF_SOURCE, OF_SOURCE),
        (f'"{PLAIN}"', None, PLAIN),
        (None, None, None),
        ("", None, None),
    ],
)
def test_the_destination_compares_with_what_tells_most(of_store: str | None, of_source: str | None, taken: str | None) -> None:
    proved = ({"how": "size", "value": "1000"}, *([{"how": "part_md5", "value": of_source}] if of_source else []))
    assert with_object_of(relay(), leg(object_etag=of_store, proved=proved)).object_etag == taken


def test_progress_is_taken_over_with_its_time_and_only_when_there_is_any() -> None:
    waiting, at = relay(state=State.RECEIVING, bytes_staged=10), NOW + timedelta(seconds=9)
    moved = with_progress_of(waiting, leg(state=State.MOVING, bytes_moved=20, changed_at=at, updated_at=at))
    assert (moved.bytes_staged, moved.changed_at, moved.updated_at) == (20, at, at)
    assert with_progress_of(waiting, leg(state=State.MOVING, bytes_moved=10, changed_at=at)) is waiting


@pytest.mark.parametrize("state", State)
def test_a_relay_that_is_over_needs_its_leg_only_for_a_retry(state: State) -> None:
    is_open = state not in ENDS and state is not State.CANCELLING
    assert needs_its_leg(relay(state=state)) is is_open
    assert needs_its_leg(relay(state=state, retry_until=LATER)) is (is_open or state is State.FAILED)


@pytest.mark.parametrize("state", [state for state in State if state not in ENDS])
@pytest.mark.parametrize("leg_state", [State.PREPARING, State.QUEUED, State.MOVING, State.STAGED])
def test_every_open_leg_can_be_brought_to_its_end(state: State, leg_state: State) -> None:
    for end in (State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED, State.CANCELLING, state):
        event = last_event(relay(state=end), leg(state=leg_state))
        assert can(leg(state=leg_state), event)
        assert (event is Event.FETCHED) == (end is State.DONE and leg_state is State.STAGED)


def test_a_leg_is_left_alone() -> None:
    require_no_leg(relay())
    with pytest.raises(Conflict) as refused:
        require_no_leg(leg())
    assert refused.value.data == {"state": "staged", "transfer_id": "x"}
