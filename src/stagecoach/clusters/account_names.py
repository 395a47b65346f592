"""Names of users and groups as a system knows them, asked with ``getent`` and remembered for a while.

What one user's questions brought is never told to another: the commands run in the user's own shell, where a start file
of theirs may answer anything.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection

from stagecoach.clusters.ssh_pool import SshPool
from stagecoach.core.errors import SystemUnavailable
from stagecoach.ports.files import AccountNames, AccountNumbers

LIFE_SECONDS = 600.0
MAX_REMEMBERED = 20_000
IDS_PER_COMMAND = 500
# getent: all were found, or some were not.
_ANSWERED = frozenset({0, 2})
_MAX_ID = 2**32


class AccountBook:
    """Of one system."""

    def __init__(self, pool: SshPool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._clock = clock
        self._known: dict[tuple[str, str, int], tuple[float, str | None]] = {}

    async def names(self, username: str, uids: Collection[int], gids: Collection[int]) -> AccountNames:
        """A number without a name, or of a system that cannot tell, is missing. Raises what the pool raises."""
        return AccountNames(await self._names(username, "passwd", uids), await self._names(username, "group", gids))

    async def numbers(self, username: str) -> AccountNumbers:
        """Of the user themself. Raises what the pool raises; SystemUnavailable where the answer is none."""
        uid, gids = await asyncio.gather(self._own_numbers(username, "-u"), self._own_numbers(username, "-G"))
        return AccountNumbers(uid[0], gids)

    async def _own_numbers(self, username: str, option: str) -> tuple[int, ...]:
        answer = await self._pool.run(username, ["id", option])
        words = answer.stdout.strip().rpartition("\n")[2].split()
        if answer.exit_status != 0 or not words or not all(re.fullmatch("[0-9]{1,10}", word) for word in words):
            raise SystemUnavailable(f"The command id on the login node does not tell who {username} is there.")
        return tuple(map(int, words))

    async def _names(self, username: str, table: str, numbers: Collection[int]) -> dict[int, str]:
        now = self._clock()
        names: dict[int, str | None] = {}
        unknown = []
        for number in sorted({number for number in numbers if 0 <= number < _MAX_ID}):
            until, name = self._known.get((username, table, number), (now, None))
            if until > now:
                names[number] = name
            else:
                unknown.append(number)
        for start in range(0, len(unknown), IDS_PER_COMMAND):
            asked = unknown[start : start + IDS_PER_COMMAND]
            answer = await self._pool.run(username, ["getent", table, *map(str, asked)])
            found = _read(answer.stdout) if answer.exit_status in _ANSWERED else {}
            names |= {number: found.get(number) for number in asked}
        if len(self._known) + len(unknown) > MAX_REMEMBERED:
            self._known.clear()
        self._known |= {(username, table, number): (now + LIFE_SECONDS, names[number]) for number in unknown}
        return {number: name for number, name in names.items() if name is not None}


def _read(lines: str) -> dict[int, str]:
    """``name:password:number:…`` a line, in both tables. The first line of a number counts."""
    found: dict[int, str] = {}
    for line in lines.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0].isprintable() and fields[2].isascii() and fields[2].isdigit():
            found.setdefault(int(fields[2][:10]), fields[0])
    return found
