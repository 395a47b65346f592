"""A world of fakes that goes on by itself while requests come: its clock runs, a worker works, jobs start, end and fail.
What requests remove or close is there again after a while.

It begins with files of every kind and with transfers of two users, so that requests find something to ask for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.fakes.receiver import SECRET
from tests.fakes.systems import Entry
from tests.fakes.world import ALICE, BOB, World, open_world, world_settings

from stagecoach.core.transfer import Archive
from stagecoach.flows.begin_relay import RelayEnd, begin_relay
from stagecoach.flows.begin_transfer import begin_download, begin_upload
from stagecoach.ports.compute import JobDescription
from stagecoach.ports.scheduler import JobPhase
from stagecoach.settings import Settings

# So much passes between two looks of the worker, and the world stands still for so long meanwhile.
TICK_SECONDS = 30.0
PAUSE_SECONDS = 0.5
TRANSFERS_OF_A_KIND = 5
JOBS = 10
FAILING_JOB = 4
"""Every so many-th job fails."""
ACCOUNT_NAME, ACCOUNT_PASSWORD = "carol", "several words make a good one"


@dataclass
class Known:
    """What exists at the beginning, by the name of the dictionary that tells schemathesis."""

    systems: list[str] = field(default_factory=lambda: ["alps", "bora"])
    paths: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=lambda: ["new.bin", "big.bin", "a", "ä"])
    accounts: list[str] = field(default_factory=lambda: ["proj1", "proj2", ""])
    people: list[str] = field(default_factory=lambda: ["alice", "bob", ACCOUNT_NAME])
    passwords: list[str] = field(default_factory=lambda: [ACCOUNT_PASSWORD, "another of several words"])
    sizes: list[int] = field(default_factory=lambda: [0, 1, 7, 1000, 7340032])
    transfer_ids: list[str] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=lambda: ["0", "1", "9", "10000"])
    urls: list[str] = field(default_factory=lambda: ["https://receiver.example.org/hook", "http://127.0.0.1/"])
    settings: list[str] = field(default_factory=lambda: ["s3.max_part_size", "systems.bora.enabled"])


def living_settings() -> Settings:
    """Room for all that is begun here and never brought to its end."""
    limits = {
        "max_new_transfers_per_minute_per_user": 100_000,
        "max_open_transfers_per_user": 10**6,
        "max_open_transfers": 10**6,
        "keep_failed_seconds": 86_400,
    }
    changes: dict[str, Any] = {
        "alps": {"limits": limits},
        "bora": {"limits": limits},
        "accounts": {
            "enabled": True,
            "registration": "open",
            "log_in_tries_per_account": 1000,
            "log_in_tries_per_address": 100_000,
        },
        "events": {"heartbeat_seconds": 1.0, "max_streams_per_user": 1000},
        "webhooks": {"allowed_hosts": ["receiver.example.org"], "signing_secret": SECRET},
    }
    return world_settings(**changes)


@contextlib.asynccontextmanager
async def living_world(directory: Path, template: Path, known: Known) -> AsyncIterator[World]:
    """Open, inhabited and alive; ``known`` says then what there is. An error of the worker's is raised when it is closed."""
    async with open_world(directory, template, living_settings()) as world:
        _add_files(world, known)
        first = {path: replace(entry) for path, entry in world.files.entries.items()}
        await _begin_transfers(world, known)
        await _submit_jobs(world, known)
        stop = asyncio.Event()
        life = asyncio.create_task(_live(world, first, stop))
        try:
            yield world
        finally:
            stop.set()
            await life


async def _live(world: World, first: Mapping[str, Entry], stop: asyncio.Event) -> None:
    worker = world.worker()
    while not stop.is_set():
        await world.work(seconds=TICK_SECONDS, worker=worker)
        for job in list(world.scheduler.jobs.values()):
            if job.phase is JobPhase.RUNNING and int(job.job_id) % FAILING_JOB == 0:
                world.nodes.end_with(job.job_id, JobPhase.FAILED, "no_space")
        world.let_cluster_work()
        for path, entry in first.items():
            if path not in world.files.entries or world.files.entries[path].mode != entry.mode:
                world.files.entries[path] = replace(entry)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PAUSE_SECONDS)


def _add_files(world: World, known: Known) -> None:
    home = f"/home/{ALICE.username}"
    world.files.add_directory("/scratch", "root", 0o777)
    world.files.add_directory(f"{home}/results", ALICE.username)
    world.files.add_directory(f"{home}/empty", ALICE.username)
    for path in (f"{home}/big.bin", f"{home}/results/one.txt", f"{home}/.hidden", f"{home}/ä \udcff'\"\n", "/scratch/shared.bin"):
        world.files.add_file(path, ALICE.username, b"content")
    world.files.add_symlink(f"{home}/link", ALICE.username, "big.bin")
    world.files.add_symlink(f"{home}/outside", ALICE.username, "/etc")
    world.files.add_other(f"{home}/fifo", ALICE.username)
    inside = ("", "/big.bin", "/results", "/results/new.bin", "/empty", "/new.bin", "/link", "/outside", "/fifo", "/big.bin/x")
    known.paths += [home + name for name in inside]
    known.paths += ["/scratch", "/scratch/shared.bin", "/scratch/new", "/home/bob", "/home/bob/x", "/etc/passwd", "/", "relative"]


async def _begin_transfers(world: World, known: Known) -> None:
    tools, content = world.tools, b"content"
    for number in range(TRANSFERS_OF_A_KIND):
        for caller in (ALICE, BOB):
            home = f"/home/{caller.username}"
            world.files.add_file(f"{home}/big.bin", caller.username, content)
            await begin_upload(tools, caller, "alps", f"{home}/open-{number}", len(content))
            await begin_upload(tools, caller, "alps", f"{home}/also-open-{number}", 2 * len(content))
            await begin_upload(tools, caller, "bora", f"{home}/waiting-{number}", len(content), "proj1")
            whole = await begin_upload(tools, caller, "alps", f"{home}/whole-{number}", len(content))
            assert world.put_by_client(whole, content)
            await begin_download(tools, caller, "alps", f"{home}/big.bin")
            for system, account in (("alps", None), ("bora", "proj1")):
                source, destination = RelayEnd("alps", f"{home}/big.bin"), RelayEnd(system, f"{home}/{system}-{number}", account)
                await begin_relay(tools, caller, source, destination)
        await begin_download(tools, ALICE, "alps", "/home/alice/results", archive=Archive.TAR)
    transfers = await world.all_transfers()
    known.transfer_ids = [transfer.id for transfer in transfers]
    known.job_ids = [transfer.job_id for transfer in transfers if transfer.job_id]


async def _submit_jobs(world: World, known: Known) -> None:
    for number in range(JOBS):
        job_id = await world.compute.submit(ALICE.username, JobDescription("/home/alice", script="#!/bin/sh\n"))
        known.job_ids.append(job_id)
        if number % 2:
            world.compute.set_phase(job_id, JobPhase.RUNNING)
