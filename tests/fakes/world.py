"""A whole service on fakes: SQLite in a file, the store and the cluster in memory, a clock that a test moves."""

from __future__ import annotations

import asyncio
import inspect
import random
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pwdlib.hashers.argon2 import Argon2Hasher
from tests.fakes.compute import MemoryCompute
from tests.fakes.systems import MemoryFiles, MemoryNodes, MemoryScheduler, put_by_urls

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.job_scripts import OPERATIONS_FILE
from stagecoach.core.transfer import Transfer, TransferFilter
from stagecoach.database.accounts import Accounts
from stagecoach.database.audit_log import AuditLog
from stagecoach.database.buckets import Buckets
from stagecoach.database.engine import migrate, open_engine
from stagecoach.database.followed_jobs import FollowedJobs
from stagecoach.database.inventory import Inventory
from stagecoach.database.log_in_tries import LogInTries
from stagecoach.database.network_checks import NetworkChecks
from stagecoach.database.node_commands import NodeCommands
from stagecoach.database.node_grants import NodeGrants
from stagecoach.database.node_polls import NodePolls
from stagecoach.database.nodes import Nodes
from stagecoach.database.personal_tokens import PersonalTokens
from stagecoach.database.setting_overrides import SettingOverrides
from stagecoach.database.system_polls import SystemPolls
from stagecoach.database.transfers import Transfers
from stagecoach.database.webhook_deliveries import WebhookDeliveries
from stagecoach.flows.begin_transfer import BegunUpload
from stagecoach.flows.node_calls import NodeCalls
from stagecoach.flows.passwords import Passwords
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.object_stores.memory import MemoryStore
from stagecoach.settings import Settings, settings_from
from stagecoach.settings.run_time import SettingsInForce
from stagecoach.worker import Worker

ALICE = Caller("alice")
BOB = Caller("bob")
ADMIN = Caller("root-of-all", is_admin=True)
MOVER = b"# the mover\n"
OPERATIONS = {OPERATIONS_FILE: b"# what works on files within a system\n"}


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = datetime(2030, 5, 17, 12, 0, 0, tzinfo=UTC)

    def now(self) -> datetime:
        """The time."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Move it on."""
        self.time += timedelta(seconds=seconds)


class Crash(BaseException):
    """The process is gone: nothing of it runs any more, no handler and no clean-up."""


READS = frozenset(
    f"{table}.{name}"
    for table, names_of_reads in {
        "Transfers": ("get", "find_by_idempotency_key", "find_by_job", "history", "page", "usage"),
        "FollowedJobs": ("systems_with_due", "due", "lively"),
        "SystemPolls": ("open_systems",),
        "Buckets": ("fingerprint",),
        "WebhookDeliveries": ("standing",),
        "NodeCommands": ("get", "sealed", "open_of_transfer"),
    }.items()
    for name in names_of_reads
)


class Process:
    """One process of the service. It dies just before its ``crash_at``-th call to anything outside.

    Who dies just after a call has done neither less nor more than who dies before the next.
    """

    def __init__(self, crash_at: int | None = None) -> None:
        self._crash_at = crash_at
        self.calls: list[str] = []
        self.is_dead = False

    @property
    def where(self) -> str:
        """It dies, or would have."""
        return f"before call {self._crash_at} ({self.calls[-1] if self.calls else '-'})"

    def watched(self, thing: Any) -> Any:
        """``thing``, whose every call counts and may be the last."""
        return _Watched(self, thing)

    async def run(self, name: str, call: Any) -> Any:
        """One call."""
        if self.is_dead:
            raise Crash
        if name in READS:
            # Who dies there has done neither less nor more than who dies at the next call.
            return await call()
        self.calls.append(name)
        if len(self.calls) == self._crash_at:
            self.is_dead = True
            raise Crash
        return await call()


class _Watched:
    def __init__(self, process: Process, thing: Any) -> None:
        self._process = process
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._thing, name)
        if not inspect.iscoroutinefunction(member):
            return member

        async def call(*arguments: Any, **options: Any) -> Any:
            return await self._process.run(f"{type(self._thing).__name__}.{name}", lambda: member(*arguments, **options))

        return call


class World:
    """Everything there is. ``tools`` is the toolbox of a process that never dies; ``toolbox`` makes others."""

    def __init__(self, engine: Any, settings: Settings) -> None:
        self.clock = Clock()
        self._node_calls: list[NodeCalls] = []
        self.engine = engine
        self.settings = settings
        self.store = MemoryStore(self.clock.now, smallest_part_bytes=1)
        self.scheduler = MemoryScheduler(now=self.clock.now)
        self.files = MemoryFiles()
        self.compute = MemoryCompute(self.clock.now)
        self.nodes = MemoryNodes(self.scheduler, self.files, self.store.follow)
        self.files.add_user("alice")
        self.files.add_user("bob")
        self.nudges = 0
        self._random = random.Random(20300517)
        # As cheap as argon2 can be.
        self.passwords = Passwords(Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1))
        self.tools = self.toolbox()
        self.transfers = Transfers(engine)

    def _nudged(self) -> None:
        self.nudges += 1

    def toolbox(self, process: Process | None = None) -> Toolbox:
        """What a process of the service holds."""
        watched = process.watched if process is not None else lambda thing: thing
        scheduler, files = watched(self.scheduler), watched(self.files)
        tools = Toolbox(
            settings_in_force=SettingsInForce(self.settings),
            setting_overrides=watched(SettingOverrides(self.engine)),
            transfers=watched(Transfers(self.engine)),
            followed_jobs=watched(FollowedJobs(self.engine)),
            polls=watched(SystemPolls(self.engine)),
            buckets=watched(Buckets(self.engine)),
            inventory=watched(Inventory(self.engine)),
            accounts=Accounts(self.engine),
            log_in_tries=LogInTries(self.engine),
            personal_tokens=PersonalTokens(self.engine),
            passwords=self.passwords,
            nodes=Nodes(self.engine),
            node_commands=watched(NodeCommands(self.engine)),
            network_checks=NetworkChecks(self.engine),
            node_polls=NodePolls(self.engine),
            node_grants=watched(NodeGrants(self.engine)),
            deliveries=watched(WebhookDeliveries(self.engine)),
            audit_log=watched(AuditLog(self.engine)),
            store=watched(self.store),
            systems={system.name: System(system, scheduler, files, self.compute) for system in self.settings.systems},
            now=self.clock.now,
            random_bits=self._random.getrandbits,
            mover_source=MOVER,
            operation_sources=OPERATIONS,
            nudge_worker=self._nudged,
        )
        self._node_calls.append(tools.node_calls)
        return tools

    async def end(self) -> None:
        """Of all processes: nothing of them uses the database any more."""
        for calls in self._node_calls:
            calls.close()
            await calls.ended()

    def worker(self, process: Process | None = None, name: str = "worker-1") -> Worker:
        """A worker of such a process."""
        return Worker(self.toolbox(process), name, asyncio.Event())

    async def work(self, rounds: int = 1, *, seconds: float = 1.0, worker: Worker | None = None) -> None:
        """Rounds of a worker, the clock moving on before each."""
        worker = worker or self.worker()
        for _ in range(rounds):
            self.clock.advance(seconds)
            await worker.round()
            await worker.settle()

    async def all_transfers(self) -> list[Transfer]:
        """Every row, oldest first."""
        return list(reversed(await self.transfers.page(TransferFilter(limit=1000, with_legs=True))))

    async def the_transfer(self) -> Transfer:
        """The only row."""
        (transfer,) = await self.all_transfers()
        return transfer

    async def get(self, transfer_id: str) -> Transfer:
        """The row as it is now."""
        transfer = await self.transfers.get(transfer_id)
        assert transfer is not None
        return transfer

    def put_by_client(self, begun: BegunUpload, content: bytes) -> bool:
        """The client puts all parts and completes."""
        part_size = begun.transfer.part_size_bytes
        return put_by_urls(self.store.follow, content, part_size, begun.part_urls, begun.complete_url)

    def put_object(self, transfer: Transfer, content: bytes) -> None:
        """An object as if a client had made it, whatever its size."""
        key = names.object_key(transfer.id)
        self.store.put_part(transfer.bucket, key, transfer.upload_id or "", 1, content)
        self.store.complete(transfer.bucket, key, transfer.upload_id or "")

    def let_cluster_work(self) -> None:
        """Running jobs finish, then pending jobs start: a job is seen running for a while."""
        self.nodes.finish_running()
        self.nodes.start_pending()

    def left_outside(self) -> list[str]:
        """Whatever of any transfer can still be found: jobs, uploads, objects, directories, hidden files."""
        left = [f"job {job.job_id} ({job.name}) is {job.phase}" for job in self.scheduler.open_jobs()]
        left += [f"path {path}" for path in sorted(self.files.entries) if "/.stagecoach/" in path or "/.stagecoach-" in path]
        return left + self.left_in_store()

    def left_in_store(self) -> list[str]:
        """Every object and every upload."""
        left = []
        for bucket, content in self.store._buckets.items():
            left += [f"object {bucket}/{key}" for key in content.objects]
            left += [f"multipart {bucket}/{upload.key}" for upload in content.uploads.values()]
        return left


def world_settings(**changes: Mapping[str, Any]) -> Settings:
    """Two systems, ``alps`` (held jobs) and ``bora`` (jobs that wait themselves, and need an account)."""
    ssh = {
        "host": "login.example.org",
        "host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrIWFdTDIZS3I0vDcYMlqFsxK9nwmBbIIVQbqnjEfWx"],
        "credentials": {"key_file": "/keys/{user}"},
    }
    # A failure leaves nothing, unless a test says otherwise.
    limits = {"keep_failed_seconds": 0}
    alps = {"name": "alps", "limits": limits, "ssh": ssh, "file_systems": [{"path": "/home/{user}"}, {"path": "/scratch"}]}
    bora = {
        "name": "bora",
        "limits": limits,
        "ssh": ssh,
        "wait": "in_job",
        "directives": ["--account={account}"],
        "file_systems": [{"path": "/home/{user}"}],
    }
    values: dict[str, Any] = {
        "s3": {"access_key_id": "key", "secret_access_key": "secret"},
        "systems": [{**alps, **changes.get("alps", {})}, {**bora, **changes.get("bora", {})}],
        # A test moves the clock by a second and wants an answer.
        "worker": {"scheduler_asks_per_minute": 600, **changes.get("worker", {})},
        "nodes": {"sealing_key": "a key that seals, of 32 and more", **changes.get("nodes", {})},
    }
    values["s3"] |= changes.get("s3", {})
    values |= {name: changes[name] for name in ("events", "webhooks", "auth", "accounts", "personal_tokens") if name in changes}
    return settings_from(values)


async def migrated_database(path: Path) -> None:
    """A database file with today's tables, to copy from."""
    engine = open_engine(f"sqlite+aiosqlite:///{path}")
    await migrate(engine)
    await engine.dispose()


@asynccontextmanager
async def open_world(directory: Path, template: Path, settings: Settings | None = None) -> AsyncIterator[World]:
    """A new world whose database is a copy of ``template``."""
    path = directory / "stagecoach.db"
    shutil.copyfile(template, path)
    engine = open_engine(f"sqlite+aiosqlite:///{path}")
    try:
        world = World(engine, settings or world_settings())
        try:
            yield world
        finally:
            await world.end()
    finally:
        await engine.dispose()
