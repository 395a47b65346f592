"""Looks, again and again, whether the services of each system answer, so that the status page can say so at once.

A task of the API process beside the requests: no request waits for a probe, none is refused because of one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from stagecoach.core import names
from stagecoach.core.errors import StagecoachError
from stagecoach.core.health import Probe, first_health
from stagecoach.core.paths import expanded_roots
from stagecoach.flows.toolbox import Probed, System, Toolbox
from stagecoach.ports.files import FileKind

log = logging.getLogger(__name__)

Look = Callable[[], Coroutine[Any, Any, str]]


async def probe_systems(tools: Toolbox) -> None:
    """Until it is cancelled."""
    async with asyncio.TaskGroup() as group:
        for name in tools.systems:
            group.create_task(_keep_probing(tools, name))


async def _keep_probing(tools: Toolbox, name: str) -> None:
    while True:
        try:
            await probe_system(tools, name)
        except Exception:
            log.exception("system %s: its services could not be probed", name)
        await asyncio.sleep(tools.system(name).settings.probing.interval_seconds)


async def probe_system(tools: Toolbox, name: str) -> None:
    """One look at every service of the system, all at once; what is believed of them is in ``tools.health`` afterwards."""
    system = tools.system(name)
    known = tools.health.setdefault(name, {})

    async def look_at(service: Probed, look: Look) -> None:
        probe = await _probe(tools, system, look)
        before = known.get(service)
        known[service] = first_health(probe) if before is None else before.after(probe)
        if (before is None or before.is_healthy) and not known[service].is_healthy:
            log.warning("system %s: %s is unhealthy: %s", name, service.path or service.service, probe.message)
        if before is not None and not before.is_healthy and known[service].is_healthy:
            log.info("system %s: %s is healthy again", name, service.path or service.service)

    await asyncio.gather(*(look_at(service, look) for service, look in _looks(tools, system).items()))


def _looks(tools: Toolbox, system: System) -> dict[Probed, Look]:
    """What is looked at, and how. Without a user to act as, only that the SSH server answers."""
    settings, login = system.settings, system.login
    username = settings.probing.ask_as or settings.scheduler.ask_as or system.acts_as
    looks: dict[Probed, Look] = {Probed("s3"): lambda: _store(tools)}
    if login is not None:
        looks[Probed("ssh")] = login.knock if username is None else lambda: login.try_login(username)
    if username is not None:
        looks[Probed("scheduler")] = lambda: system.compute.ping(username)
        for root in expanded_roots(settings.roots, username):
            looks[Probed("filesystem", root)] = lambda root=root: _file_system(system, username, root)  # type: ignore[misc]
    return looks


async def _probe(tools: Toolbox, system: System, look: Look) -> Probe:
    limit = system.settings.probing.timeout_seconds
    begun = time.perf_counter()
    try:
        async with asyncio.timeout(limit):
            message, is_good = await look(), True
    except StagecoachError as error:
        message, is_good = error.message, False
    except TimeoutError:
        message, is_good = f"did not answer within {limit:g} s.", False
    except Exception as error:
        log.exception("system %s: a probe failed", system.settings.name)
        message, is_good = f"the probe itself failed ({type(error).__name__}).", False
    return Probe(tools.now(), time.perf_counter() - begun, is_good, message)


async def _store(tools: Toolbox) -> str:
    # Nothing is made: whether there is such an object, or such a bucket, does not matter.
    await tools.store.head_object(names.bucket_name(tools.settings.s3.bucket_prefix, "probe"), "probe")
    return "answers."


async def _file_system(system: System, username: str, root: str) -> str:
    status = await system.files.status(username, root, follow_symlinks=True)
    if status is None or status.kind is not FileKind.DIRECTORY:
        raise StagecoachError("is not there, or is no directory.")
    return "answers."
