"""How fast a transfer goes from node to node is changed while it goes: the sender is told with its next report."""

from __future__ import annotations

import pytest
from tests.fakes.direct_agents import DirectAgent
from tests.fakes.world import ADMIN, ALICE, BOB, World
from tests.unit.flows.test_direct_road import at_once, begun, legs, receiver, sender, to_the_end, turn

from stagecoach.core.errors import Conflict, PermissionRefused, TransferNotFound
from stagecoach.core.nodes import CommandKind
from stagecoach.core.transfer import Road, State, Transfer
from stagecoach.flows.change_rate import change_rate
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.stop_transfer import stop_transfer

__all__ = ["at_once", "receiver", "sender"]  # fixtures


async def sending(world: World, sender: DirectAgent, receiver: DirectAgent) -> Transfer:
    transfer = await begun(world, sender, receiver)
    await turn(world, receiver)
    await world.work()
    await sender.work(to_the_end=False)
    return transfer


async def test_the_sender_hears_of_it_and_a_retry_keeps_it(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await sending(world, sender, receiver)
    sends = sender.running(CommandKind.SEND)
    assert (await sender.tell(sends.id, 1, 800)).rate_limit_bytes_per_second is None
    changed = await change_rate(world.tools, ALICE, transfer.id, 5000)
    assert changed.rate_limit_bytes_per_second == 5000
    assert (await sender.tell(sends.id, 2, 800)).rate_limit_bytes_per_second == 5000
    assert await change_rate(world.tools, ALICE, transfer.id, 5000) == changed, "twice is fine"
    await change_rate(world.tools, ALICE, transfer.id, None)
    assert (await sender.tell(sends.id, 3, 800)).rate_limit_bytes_per_second is None
    await change_rate(world.tools, ALICE, transfer.id, 7000)
    await stop_transfer(world.tools, ALICE, transfer.id)
    for _ in range(3):
        await turn(world, receiver, sender)
    await change_rate(world.tools, ALICE, transfer.id, 8000)
    await world.work()
    await retry_transfer(world.tools, ALICE, transfer.id)
    for _ in range(3):
        await turn(world, receiver)
    await sender.work(to_the_end=False)
    assert sender.running(CommandKind.SEND).spec["rateLimitBytesPerSecond"] == 8000
    story = [line.message for line in await world.transfers.history(transfer.id)]
    assert "It goes at 5000 bytes a second at most from now on." in story
    assert (await to_the_end(world, transfer, receiver, sender)).state is State.DONE
    with pytest.raises(Conflict, match="nothing of it is to be sent"):
        await change_rate(world.tools, ALICE, transfer.id, 1024)


async def test_a_crash_between_the_two_rows_is_made_good(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await sending(world, sender, receiver)
    save, count = world.tools.transfers.save, 0

    async def dying(*arguments: object, **options: object) -> Transfer:
        nonlocal count
        count += 1
        if count == 2:
            raise RuntimeError("killed")
        return await save(*arguments, **options)  # type: ignore[arg-type]

    world.tools.transfers.save = dying  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        await change_rate(world.tools, ALICE, transfer.id, 5000)
    world.tools.transfers.save = save  # type: ignore[method-assign]
    await world.work(3)
    leg, relay = await legs(world, transfer)
    assert (leg.rate_limit_bytes_per_second, relay.rate_limit_bytes_per_second) == (5000, 5000)


async def test_it_is_its_owners_and_of_what_goes_straight_alone(world: World, sender: DirectAgent, receiver: DirectAgent) -> None:
    transfer = await sending(world, sender, receiver)
    with pytest.raises(TransferNotFound):
        await change_rate(world.tools, BOB, transfer.id, 5000)
    with pytest.raises(PermissionRefused):
        await change_rate(world.tools, ADMIN, transfer.id, 5000)
    with pytest.raises(Conflict, match="source leg"):
        await change_rate(world.tools, ALICE, transfer.source_transfer_id or "", 5000)
    staged = await begun(world, sender, receiver, Road.STAGED)
    with pytest.raises(Conflict, match="straight"):
        await change_rate(world.tools, ALICE, staged.id, 5000)
