"""An agent, and a worker, that do their part before the request that asks for it has noted what it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.fakes.direct_agents import direct_agent
from tests.fakes.world import ALICE, Process, World
from tests.unit.flows import test_direct_crashes as direct
from tests.unit.flows import test_node_crashes as staged

from stagecoach.core.transfer import State
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.begin_transfer import begin_download, begin_upload


class Slow(Process):
    """After each call to anything outside others have their turn."""

    def __init__(self, world: World, agents: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._worker, self._agents = world.worker(name="another"), agents

    async def run(self, name: str, call: Any) -> Any:
        result = await super().run(name, call)
        await self._agents()
        await self._worker.round()
        await self._worker.settle()
        return result


@pytest.mark.parametrize("to_the_end", [False, True], ids=["begun", "done"])
async def test_straight_from_node_to_node(world: World, to_the_end: bool) -> None:
    sender, receiver = await direct_agent(world, ALICE, "lab"), await direct_agent(world, ALICE, "vault")
    sender.send[direct.SOURCE] = direct.CONTENT
    sender.reaches = {str(receiver.host): receiver}
    lab = direct.Lab(world, sender, receiver)
    slow = Slow(world, lambda: lab.work(to_the_end=to_the_end))
    ends = RelayEnd(sender.system, direct.SOURCE), RelayEnd(receiver.system, direct.TARGET)
    transfer = (await begin_relay(world.toolbox(slow), ALICE, *ends)).transfer
    assert len(slow.calls) > 3
    for _ in range(8):
        await lab.work()
        await world.work(seconds=5.0)
    assert (await world.get(transfer.id)).state is State.DONE
    assert receiver.receive == {direct.TARGET: direct.CONTENT}


@pytest.mark.parametrize("to_the_end", [False, True], ids=["begun", "done"])
async def test_from_a_node_to_the_staging_area(world: World, to_the_end: bool) -> None:
    lab = await staged.a_lab(world)
    slow = Slow(world, lambda: lab.work(to_the_end=to_the_end))
    transfer = (await begin_download(world.toolbox(slow), ALICE, lab.system, staged.PATH)).transfer
    assert len(slow.calls) > 3
    for _ in range(4):
        await lab.work()
        await world.work(seconds=5.0)
    assert (await world.get(transfer.id)).state is State.STAGED


async def test_from_the_staging_area_to_a_node(world: World) -> None:
    lab = await staged.a_lab(world)
    slow = Slow(world, lab.work)
    begun = await begin_upload(world.toolbox(slow), ALICE, lab.system, staged.PATH, len(staged.CONTENT))
    assert len(slow.calls) > 3
    world.put_by_client(begun, staged.CONTENT)
    for _ in range(4):
        await lab.work()
        await world.work(seconds=5.0)
    assert (await world.get(begun.transfer.id)).state is State.DONE
    assert lab.agent.receive == {staged.PATH: staged.CONTENT}
