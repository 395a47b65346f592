"""``DELETE /transfers/{id}`` works in every state that the table lets be cancelled, both ways, and leaves nothing."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.fakes.world import World
from tests.unit.api.answers import problem
from tests.unit.api.test_transfers import BODY, DOWNLOAD, UPLOAD
from tests.unit.flows.test_cancelling import CONTENT, TARGET, at_state

from stagecoach.core.state_machine import TABLE, Event
from stagecoach.core.transfer import Direction, State
from stagecoach.flows import cancel_transfer as cancelling

STATES = [
    (direction.value, state)
    for direction, steps in TABLE.items()
    for state, events in steps.items()
    if Event.CANCEL_ASKED in events
]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request looks again at once."""
    monkeypatch.setattr(cancelling, "LOOK_SECONDS", 0)


def test_every_state_but_the_ends_can_be_cancelled() -> None:
    open_states = set(State) - {State.DONE, State.FAILED, State.CANCELLED, State.EXPIRED, State.CANCELLING}
    assert {state for direction, state in STATES if direction == "upload"} == open_states
    assert {state for direction, state in STATES if direction == "download"} == open_states - {State.RECEIVING}


@pytest.mark.parametrize(("direction", "state"), [pair for pair in STATES if pair[1] is not State.PREPARING])
async def test_what_is_under_way_is_cancelled(alice: httpx.AsyncClient, world: World, direction: str, state: State) -> None:
    transfer = await at_state(world, direction, state)
    answer = await alice.delete(f"/transfers/{transfer.id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    await world.work(5, seconds=100)
    assert (await world.get(transfer.id)).next_check_at is None
    assert world.left_outside() == []
    assert (await alice.delete(f"/transfers/{transfer.id}")).json()["state"] == "cancelled"


@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("step", ["store.open_multipart", "files.make_directory", "scheduler.submit"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
async def test_what_is_being_prepared_is_cancelled(
    alice: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch, direction: Direction, step: str, late: bool
) -> None:
    """The cancel comes in the middle of the request that makes everything; that request is told so."""
    world.files.add_file(TARGET, "alice", CONTENT)
    room, name = step.split(".")
    thing = getattr(world, room)
    original, cancelled = getattr(thing, name), []

    async def and_a_cancel(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(thing, name, original)
        result = await original(*arguments, **options) if late else None
        transfer = await world.the_transfer()
        assert transfer.state is State.PREPARING
        cancelled.append(await alice.delete(f"/transfers/{transfer.id}"))
        return result if late else await original(*arguments, **options)

    if step == "scheduler.submit":
        monkeypatch.setattr(cancelling, "INLINE_SECONDS", 0)
    monkeypatch.setattr(thing, name, and_a_cancel)
    is_upload = direction is Direction.UPLOAD
    body = {**BODY, "path": TARGET + "2"} if is_upload else {"path": TARGET, "transferDirectives": {}}
    refused = await alice.post(UPLOAD if is_upload else DOWNLOAD, json=body)
    # In most places 409; where the next step misses what the cancel took away, its own refusal.
    assert 400 <= refused.status_code < 500
    problem(refused, refused.status_code)
    assert cancelled[0].status_code == 200
    assert cancelled[0].json()["state"] in {"cancelled", "cancelling"}
    await world.work(5, seconds=100)
    transfer = await world.the_transfer()
    assert (transfer.state, transfer.cleaned, transfer.next_check_at) == (State.CANCELLED, True, None)
    assert world.left_outside() == []
