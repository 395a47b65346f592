"""What is beyond a bound is refused, and nothing was made: no row, no object, no job, not even a question to the cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.world import ALICE, BOB, World, open_world, world_settings

from stagecoach.core.access import Caller
from stagecoach.core.errors import (
    QuotaReached,
    SizeRefused,
    StagecoachError,
    StagingFull,
    SystemUnavailable,
    TooManyRequests,
    TooManyTransfers,
)
from stagecoach.core.transfer import Archive, State
from stagecoach.flows.answer_again import RepeatableRequest
from stagecoach.flows.begin_transfer import BegunUpload, begin_download, begin_upload
from stagecoach.flows.cancel_transfer import cancel_transfer


async def begin(world: World, number: int = 0, caller: Caller = ALICE, size: int = 100) -> BegunUpload:
    return await begin_upload(world.tools, caller, "alps", f"/home/{caller.username}/{number}", size)


@pytest.mark.parametrize(
    ("changes", "caller", "refusal"),
    [
        ({"alps": {"limits": {"max_open_transfers_per_user": 2}}}, ALICE, TooManyTransfers),
        ({"alps": {"limits": {"max_open_transfers": 2}}}, BOB, TooManyTransfers),
        ({"alps": {"limits": {"max_new_transfers_per_minute_per_user": 2}}}, ALICE, TooManyRequests),
        ({"s3": {"max_staged_bytes_per_user": 299}}, ALICE, QuotaReached),
        ({"s3": {"max_staged_bytes": 299}}, BOB, StagingFull),
        ({"s3": {"max_staged_bytes_per_user": 200}}, ALICE, QuotaReached),
    ],
    ids=["user", "system", "minute", "quota", "staging", "exactly full"],
)
async def test_beyond_a_bound_nothing_is_made(
    tmp_path: Path, database_template: Path, changes: dict[str, Any], caller: Caller, refusal: type[StagecoachError]
) -> None:
    async with open_world(tmp_path, database_template, world_settings(**changes)) as world:
        for number in range(2):
            await begin(world, number)
        world.files.add_file(f"/home/{caller.username}/source", caller.username, b"x" * 100)
        world.files.add_directory(f"/home/{caller.username}/tree", caller.username)
        left, calls, rows = world.left_outside(), len(world.scheduler.calls), len(await world.all_transfers())
        with pytest.raises(refusal):
            await begin(world, 2, caller)
        with pytest.raises(refusal):
            await begin_download(world.tools, caller, "alps", f"/home/{caller.username}/source")
        assert (world.left_outside(), len(world.scheduler.calls)) == (left, calls)
        assert len(await world.all_transfers()) == rows


@pytest.mark.parametrize(
    "changes",
    [{"alps": {"limits": {"max_open_transfers_per_user": 1}}}, {"s3": {"max_staged_bytes_per_user": 100}}],
    ids=["user", "quota"],
)
async def test_a_request_sent_twice_at_once_is_not_refused_for_the_place_that_it_takes_itself(
    tmp_path: Path, database_template: Path, changes: dict[str, Any]
) -> None:
    repeatable = RepeatableRequest("the-same", "00")
    async with open_world(tmp_path, database_template, world_settings(**changes)) as world:
        asked = [begin_upload(world.tools, ALICE, "alps", "/home/alice/0", 100, repeatable=repeatable) for _ in range(5)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(answer).__name__ for answer in answers} <= {"BegunUpload", "RequestUnderWay"}
        (transfer,) = await world.all_transfers()
        assert {answer.transfer.id for answer in answers if isinstance(answer, BegunUpload)} == {transfer.id}


async def test_a_minute_later_more_may_begin(tmp_path: Path, database_template: Path) -> None:
    settings = world_settings(alps={"limits": {"max_new_transfers_per_minute_per_user": 2}})
    async with open_world(tmp_path, database_template, settings) as world:
        await begin(world, 0)
        world.clock.advance(30)
        await begin(world, 1)
        with pytest.raises(TooManyRequests) as refusal:
            await begin(world, 2)
        assert refusal.value.data["retry_after_seconds"] == 30
        await begin(world, 2, BOB)
        world.clock.advance(30)
        await begin(world, 2)


async def test_the_quota_is_given_back_when_the_data_is_gone(tmp_path: Path, database_template: Path) -> None:
    async with open_world(tmp_path, database_template, world_settings(s3={"max_staged_bytes_per_user": 150})) as world:
        first = await begin(world, 0)
        with pytest.raises(QuotaReached):
            await begin(world, 1)
        with pytest.raises(SizeRefused):
            await begin(world, 1, size=151)
        await begin(world, 1, BOB)
        await cancel_transfer(world.tools, ALICE, first.transfer.id)
        await world.work(3, seconds=3)
        assert (await world.get(first.transfer.id)).cleaned
        second = await begin(world, 2)
        assert world.put_by_client(second, b"x" * 100)
        for _ in range(6):
            await world.work(2, seconds=2)
            world.let_cluster_work()
        assert (await world.get(second.transfer.id)).state is State.DONE
        await begin(world, 3)


async def test_a_directory_of_unknown_size_counts_as_it_is_measured(tmp_path: Path, database_template: Path) -> None:
    async with open_world(tmp_path, database_template, world_settings(s3={"max_staged_bytes_per_user": 150})) as world:
        world.files.add_directory("/home/alice/tree", "alice")
        world.files.add_file("/home/alice/tree/in-archive", "alice", b"x" * 1024)
        begun = await begin_download(world.tools, ALICE, "alps", "/home/alice/tree", archive=Archive.TAR)
        await begin(world, 0)
        for _ in range(6):
            await world.work(2, seconds=2)
            world.let_cluster_work()
        staged = await world.get(begun.transfer.id)
        assert (staged.state, staged.size_bytes) == (State.STAGED, 1024)
        with pytest.raises(QuotaReached, match="1124 of the 150 bytes"):
            await begin(world, 1, size=1)


async def test_while_the_scheduler_is_known_to_be_down_nothing_is_made(world: World) -> None:
    world.scheduler.known_to_be_down = True
    with pytest.raises(SystemUnavailable) as refusal:
        await begin(world)
    assert refusal.value.data["retry_after_seconds"] == 4
    assert (world.left_outside(), await world.all_transfers(), world.scheduler.calls) == ([], [], [])
