"""Picks the plugs that the settings name and joins them into a toolbox. Nothing else chooses a plug."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from stagecoach.clusters.local import LocalScheduler
from stagecoach.clusters.local_compute import LocalCompute
from stagecoach.clusters.local_files import LocalFiles
from stagecoach.clusters.remote_files import RemoteFiles
from stagecoach.clusters.slurm_compute import SlurmCompute
from stagecoach.clusters.slurm_over_ssh import SlurmOverSsh
from stagecoach.clusters.slurm_rest import SlurmRest
from stagecoach.clusters.ssh_pool import SshPool
from stagecoach.core.job_scripts import OPERATION_FILES
from stagecoach.database.accounts import Accounts
from stagecoach.database.audit_log import AuditLog
from stagecoach.database.buckets import Buckets
from stagecoach.database.engine import migrate, open_engine, require_current
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
from stagecoach.flows.change_settings import refresh_settings
from stagecoach.flows.passwords import Passwords
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.object_stores.s3 import S3Store
from stagecoach.ports.compute import Compute
from stagecoach.settings import Settings, SystemSettings
from stagecoach.settings.run_time import SettingsInForce


def utc_now() -> datetime:
    """The clock of the real service."""
    return datetime.now(UTC)


@asynccontextmanager
async def open_toolbox(
    settings: Settings, nudge_worker: Callable[[], None] = lambda: None, *, require_tables: bool = True
) -> AsyncIterator[Toolbox]:
    """Everything opened, and closed again at the end. ``require_tables`` looks at the database at once.

    Raises:
        SettingsError: the database's tables are not of this version. Unavailable: it does not answer.
    """
    async with AsyncExitStack() as stack:
        engine = open_engine(settings.database.url.get_secret_value(), settings.database.pool_size)
        stack.push_async_callback(engine.dispose)
        if require_tables:
            await require_current(engine)
        passwords = Passwords()
        stack.callback(passwords.close)
        urls = {system.name: system.s3_url for system in settings.systems if system.s3_url is not None}
        store = await stack.enter_async_context(S3Store(settings.s3, urls, utc_now))
        systems = {system.name: await _open_system(stack, system) for system in settings.systems}
        tools = Toolbox(
            settings_in_force=SettingsInForce(settings),
            setting_overrides=SettingOverrides(engine),
            transfers=Transfers(engine),
            followed_jobs=FollowedJobs(engine),
            polls=SystemPolls(engine),
            buckets=Buckets(engine),
            inventory=Inventory(engine),
            accounts=Accounts(engine),
            log_in_tries=LogInTries(engine),
            personal_tokens=PersonalTokens(engine),
            passwords=passwords,
            nodes=Nodes(engine),
            node_commands=NodeCommands(engine),
            network_checks=NetworkChecks(engine),
            node_polls=NodePolls(engine),
            node_grants=NodeGrants(engine),
            deliveries=WebhookDeliveries(engine),
            audit_log=AuditLog(engine),
            store=store,
            systems=systems,
            now=utc_now,
            random_bits=secrets.randbits,
            mover_source=mover_source(),
            operation_sources=operation_sources(),
            nudge_worker=nudge_worker,
        )
        if require_tables:
            await refresh_settings(tools)
        yield tools


async def migrate_database(settings: Settings) -> None:
    """Bring the tables to this version."""
    engine = open_engine(settings.database.url.get_secret_value(), 1)
    try:
        await migrate(engine)
    finally:
        await engine.dispose()


def mover_source() -> bytes:
    """The mover, as it is shipped to clusters."""
    return resources.files("stagecoach.mover").joinpath("stagecoach_mover.py").read_bytes()


def operation_sources() -> dict[str, bytes]:
    """What works on files within a system, by file name, as it is shipped beside the mover."""
    return {name: resources.files("stagecoach.mover").joinpath(name).read_bytes() for name in OPERATION_FILES}


async def _open_system(stack: AsyncExitStack, settings: SystemSettings) -> System:
    if settings.scheduler.kind == "local" or settings.ssh is None:
        scheduler = LocalScheduler(Path(settings.scheduler.state_directory or ""))
        return System(settings, scheduler, LocalFiles(), LocalCompute(scheduler), acts_as=getpass.getuser())
    pool = SshPool(settings.name, settings.ssh)
    stack.push_async_callback(pool.aclose)
    files = RemoteFiles(settings, pool)
    compute: Compute = SlurmCompute(settings, pool, files)
    if settings.scheduler.rest is not None:
        compute = SlurmRest(settings.name, settings.scheduler.rest, compute, files)
        stack.push_async_callback(compute.aclose)
    return System(settings, SlurmOverSsh(settings, pool), files, compute, login=pool)
