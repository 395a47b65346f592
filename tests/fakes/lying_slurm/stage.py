"""The whole service before a cluster that lies: real SSH, plug and worker; store, database file and clock are a test's."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.contract.ssh_testbed import directory_of, open_pool, read_testbed, system_settings
from tests.fakes.lying_slurm.cluster import LyingSlurm, is_ours, open_lying_slurm
from tests.fakes.world import ALICE, World, open_world, world_settings

from stagecoach.clusters.remote_files import RemoteFiles
from stagecoach.clusters.slurm_over_ssh import SlurmOverSsh
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.begin_transfer import BegunUpload, begin_upload

CONTENT = bytes(range(250)) * 8
OLD = b"what was there before"


@dataclass
class Stage:
    """The service, its cluster of lies, and one user's file on it."""

    world: World
    slurm: LyingSlurm
    target: Path

    async def begin(self) -> BegunUpload:
        return await begin_upload(self.world.tools, ALICE, "alps", str(self.target), len(CONTENT))

    async def queue(self) -> Transfer:
        """An upload whose job waits for a node."""
        begun = await self.begin()
        assert self.world.put_by_client(begun, CONTENT)
        await self.world.work(2)
        return await self.is_now(State.QUEUED)

    async def run(self) -> Transfer:
        """An upload whose job runs."""
        transfer = await self.queue()
        self.slurm.start(transfer.job_id or "")
        await self.world.work()
        return await self.is_now(State.MOVING)

    async def is_now(self, state: State) -> Transfer:
        transfer = await self.world.the_transfer()
        assert transfer.state is state, (transfer.state, transfer.reason)
        return transfer

    async def until(self, state: State, rounds: int = 40, seconds: float = 10.0) -> Transfer:
        for _ in range(rounds):
            await self.world.work(seconds=seconds)
            transfer = await self.world.the_transfer()
            if transfer.state is state:
                return transfer
            assert not transfer.state.is_end, (transfer.state, transfer.code, transfer.reason)
        raise AssertionError(f"still {transfer.state} ({transfer.reason})")

    async def delivered(self) -> Transfer:
        """Done, with the file, with one job of the service's ever having been submitted for each attempt; nothing left."""
        transfer = await self.until(State.DONE)
        assert self.target.read_bytes() == CONTENT
        await self.is_clean(transfer)
        return transfer

    async def failed(self, code: str) -> Transfer:
        transfer = await self.until(State.FAILED)
        assert transfer.code == code, (transfer.code, transfer.reason)
        assert self.target.read_bytes() == OLD
        await self.is_clean(transfer)
        return transfer

    async def is_clean(self, transfer: Transfer) -> None:
        await self.world.work(20, seconds=10)
        transfer = await self.world.get(transfer.id)
        assert transfer.cleaned
        assert not [job for job in self.slurm.open_jobs() if is_ours(job, transfer.id)]
        assert not os.path.exists(transfer.job_directory or "")
        assert not [path for path in self.target.parent.iterdir() if path.name.startswith(".stagecoach-")]
        assert self.world.left_in_store() == []

    async def story(self) -> str:
        transfer = await self.world.the_transfer()
        return "\n".join(entry.message for entry in await self.world.transfers.history(transfer.id))


@asynccontextmanager
async def open_stage(tmp_path: Path, empty_database: Path, scheduler_settings: dict[str, Any]) -> AsyncIterator[Stage]:
    """Alice has a directory with a file in it, which uploads replace."""
    found = read_testbed()
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(directory_of("alice", found["ALICE_HOME"])))
        followed: list[Callable[..., object]] = []
        slurm = stack.enter_context(open_lying_slurm("alice", lambda *asked: followed[0](*asked)))
        settings = system_settings(
            found,
            name="alps",
            scheduler={"binaries": str(slurm.directory), **scheduler_settings},
            file_systems=[{"path": str(directory)}],
            work_directory=f"{directory}/.stagecoach",
        )
        pool = await stack.enter_async_context(open_pool(settings))
        changes = settings.model_dump(mode="json", include={"ssh", "scheduler", "file_systems", "work_directory"})
        world = await stack.enter_async_context(open_world(tmp_path, empty_database, world_settings(alps=changes)))
        world.scheduler = SlurmOverSsh(settings, pool)  # type: ignore[assignment]
        world.files = RemoteFiles(settings, pool)  # type: ignore[assignment]
        world.tools = world.toolbox()
        followed.append(world.store.follow)
        target = directory / "the result.bin"
        target.write_bytes(OLD)
        owner = os.stat(directory).st_uid
        os.chown(target, owner, owner)
        yield Stage(world, slurm, target)
