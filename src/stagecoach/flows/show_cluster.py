"""What a system has for its users, asked as the user: nodes, partitions, reservations; and who they are on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from stagecoach.core.access import Caller
from stagecoach.core.errors import SystemUnavailable
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.ports.compute import Node, Partition, ProjectAccount, Reservation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the user's; a number without a name is its own name."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Person:
    """Who somebody is on a system. The first of ``groups`` is the primary one; no ``accounts``: they are not told."""

    id: int
    name: str
    groups: Sequence[Group]
    accounts: Sequence[ProjectAccount] | None


async def show_nodes(tools: Toolbox, caller: Caller, system_name: str) -> Sequence[Node]:
    """Raises SystemNotFound, PermissionRefused, SystemUnavailable, as all of these."""
    system, username = tools.system_for(caller.username, system_name), caller.username

    async def ask() -> Sequence[Node]:
        return await system.compute.nodes(username)

    return await tools.asked.ask(system_name, username, "nodes", ask)


async def show_partitions(tools: Toolbox, caller: Caller, system_name: str, *, with_hidden: bool) -> Sequence[Partition]:
    """In the scheduler's order."""
    system, username = tools.system_for(caller.username, system_name), caller.username

    async def ask() -> Sequence[Partition]:
        return await system.compute.partitions(username, with_hidden=with_hidden)

    return await tools.asked.ask(system_name, username, ("partitions", with_hidden), ask)


async def show_reservations(tools: Toolbox, caller: Caller, system_name: str) -> Sequence[Reservation]:
    """Present and future ones."""
    system, username = tools.system_for(caller.username, system_name), caller.username

    async def ask() -> Sequence[Reservation]:
        return await system.compute.reservations(username)

    return await tools.asked.ask(system_name, username, "reservations", ask)


async def show_person(tools: Toolbox, caller: Caller, system_name: str) -> Person:
    """Who the caller is there."""
    system, username = tools.system_for(caller.username, system_name), caller.username
    return await tools.asked.ask(system_name, username, "person", lambda: _person(system, username))


async def _person(system: System, username: str) -> Person:
    numbers, accounts = await asyncio.gather(system.files.account_numbers(username), _accounts(system, username))
    names = await system.files.account_names(username, {numbers.uid}, set(numbers.gids))
    groups = [Group(gid, names.groups.get(gid, str(gid))) for gid in numbers.gids]
    return Person(numbers.uid, names.users.get(numbers.uid, username), groups, accounts)


async def _accounts(system: System, username: str) -> Sequence[ProjectAccount] | None:
    """Not told while the scheduler's accounting does not answer: files can be looked at all the same."""
    try:
        return await system.compute.accounts(username)
    except SystemUnavailable as error:
        log.warning("system %s: the accounts of %s are not known: %s", system.settings.name, username, error.message)
        return None
