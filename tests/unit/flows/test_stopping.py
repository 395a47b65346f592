"""Stopping what goes to or from a cluster or a node, going on with it, and what is removed of what nobody goes on with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.direct_agents import direct_agent
from tests.fakes.world import ALICE, BOB, World, open_world, world_settings

from stagecoach.core.errors import Conflict, TransferNotFound
from stagecoach.core.nodes import CommandKind
from stagecoach.core.transfer import State
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer
from stagecoach.flows.retry_transfer import retry_transfer
from stagecoach.flows.stop_transfer import stop_transfer

CONTENT = b"content " * 100


@pytest.fixture
async def world(tmp_path: Path, database_template: Path) -> AsyncIterator[World]:
    """A service that keeps what failed for a day."""
    async with open_world(tmp_path, database_template, world_settings(alps={"limits": {"keep_failed_seconds": 86400}})) as opened:
        yield opened


async def test_an_upload_is_stopped_in_the_queue_and_arrives_after_a_retry(world: World) -> None:
    begun = await begin_upload(world.tools, ALICE, "alps", "/home/alice/file", len(CONTENT))
    with pytest.raises(Conflict, match="no job of it waits or runs"):
        await stop_transfer(world.tools, ALICE, begun.transfer.id)
    assert world.put_by_client(begun, CONTENT)
    await world.work(2)
    assert (await world.the_transfer()).state is State.QUEUED
    with pytest.raises(TransferNotFound):
        await stop_transfer(world.tools, BOB, begun.transfer.id)
    stopped = await stop_transfer(world.tools, ALICE, begun.transfer.id)
    assert (stopped.state, stopped.code) == (State.FAILED, "stopped")
    await world.work(3)
    assert world.scheduler.open_jobs() == []
    await retry_transfer(world.tools, ALICE, begun.transfer.id)
    for _ in range(6):
        await world.work(seconds=20)
        world.let_cluster_work()
    assert (await world.the_transfer()).state is State.DONE
    assert world.left_outside() == []


async def test_a_download_is_stopped_while_it_runs(world: World) -> None:
    world.files.add_file("/home/alice/file", "alice", CONTENT)
    begun = await begin_download(world.tools, ALICE, "alps", "/home/alice/file")
    world.nodes.start_pending()
    await world.work(2)
    assert (await world.the_transfer()).state is State.MOVING
    await stop_transfer(world.tools, ALICE, begun.transfer.id)
    await world.work(3)
    assert world.scheduler.open_jobs() == []
    await retry_transfer(world.tools, ALICE, begun.transfer.id)
    for _ in range(4):
        await world.work(seconds=20)
        world.let_cluster_work()
    assert (await world.the_transfer()).state is State.STAGED


async def test_what_a_node_kept_of_a_failed_transfer_is_removed_when_it_is_given_up(world: World) -> None:
    agent = await direct_agent(world, ALICE, "vault")
    agent.refuses = {CommandKind.MOVE: "job_failed"}
    begun = await begin_upload(world.tools, ALICE, agent.system, "/file", len(CONTENT))
    assert world.put_by_client(begun, CONTENT)
    for _ in range(6):
        await world.work(seconds=10)
        await agent.work()
    failed = await world.the_transfer()
    assert (failed.state, failed.retry_until is not None) == (State.FAILED, True)
    assert agent.told == ["move"], "what is kept for a retry stays"
    await cancel_transfer(world.tools, ALICE, begun.transfer.id)
    await world.work(3)
    await agent.work()
    assert agent.told == ["move", "discard"]
    assert await world.tools.node_commands.open_of(agent.node.id, None) == []
