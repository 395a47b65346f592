"""What the agent was told to do, one file a command. Written before anything is begun, so that no crash loses or repeats it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from stagecoach.agent import durable_files
from stagecoach.agent.errors import StateUnreadable
from stagecoach.wire.agent import Command

# Long enough for a service that was restored from yesterday's backup to be told again how a command ended.
KEEP_ACKNOWLEDGED_SECONDS = 48 * 3600.0


class CommandState(StrEnum):
    """How far a command is."""

    TAKEN = "taken"
    RUNNING = "running"
    ENDED = "ended"
    """The service may not know yet."""
    ACKNOWLEDGED = "acknowledged"
    """It does. Kept a while, in case it should be delivered once more."""


@dataclass(frozen=True)
class Ending:
    """``code`` is None after a good end; ``result`` is what a check found, ready for JSON."""

    exit_code: int
    code: str | None
    message: str
    result: dict[str, Any] | None = None


@dataclass(frozen=True)
class ProcessMark:
    """A process that can be told from a later one of the same number."""

    pid: int
    started: str


@dataclass(frozen=True)
class Entry:
    """One command. ``number`` says in which order they were taken, ``changed_at`` is in epoch seconds."""

    id: str
    kind: str
    attempt: int
    number: int
    changed_at: float
    state: CommandState = CommandState.TAKEN
    transfer_id: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    ticket_until: float | None = None
    """Of a move: until when the way to its ticket works, in epoch seconds; None where the service did not say."""
    ticket_seconds: int | None = None
    """How long it works in all."""
    has_sent: bool = False
    """Something of it may be with the other side already."""
    process: ProcessMark | None = None
    ending: Ending | None = None

    def needs_ticket(self, now: float) -> bool:
        """Whether another way to its ticket should be asked for: half of the time of the one that it has is over."""
        if self.ticket_until is None or self.ticket_seconds is None or not self.is_unfinished:
            return False
        return now >= self.ticket_until - self.ticket_seconds / 2

    @property
    def is_open(self) -> bool:
        """There is still something to do or to report."""
        return self.state is not CommandState.ACKNOWLEDGED

    @property
    def is_unfinished(self) -> bool:
        """There is still something to do."""
        return self.state in {CommandState.TAKEN, CommandState.RUNNING}


class Journal:
    """All commands that are not forgotten. Every change is on the disk before it counts. Methods raise OSError."""

    def __init__(self, directory: Path, wall_clock: Callable[[], float]) -> None:
        """Reads what is there. Raises StateUnreadable."""
        self._directory = directory
        self._wall_clock = wall_clock
        found = (_read(path) for path in directory.glob("*.json"))
        self._entries = {entry.id: entry for entry in found if entry is not None}

    def __iter__(self) -> Iterator[Entry]:
        """In the order in which they were taken."""
        return iter(sorted(self._entries.values(), key=lambda entry: entry.number))

    def get(self, command_id: str) -> Entry | None:
        """None for a command that was never taken, or is forgotten."""
        return self._entries.get(command_id)

    def take(self, command: Command) -> Entry:
        """A command that is delivered for the first time."""
        number = 1 + max((entry.number for entry in self._entries.values()), default=0)
        entry = Entry(
            command.id,
            command.kind,
            command.attempt,
            number,
            self._wall_clock(),
            transfer_id=transfer_of(command),
            spec=command.spec,
        )
        return self._keep(replace(entry, **self.ticket_life(command.ticket_seconds)))

    def ticket_life(self, seconds: int | None) -> dict[str, Any]:
        """The fields of an entry whose ticket has a new address, that works for so long."""
        return {"ticket_until": self._wall_clock() + seconds if seconds is not None else None, "ticket_seconds": seconds}

    def change(self, command_id: str, **changes: Any) -> Entry:
        """Gives the changed one."""
        return self._keep(replace(self._entries[command_id], changed_at=self._wall_clock(), **changes))

    def forget(self, command_id: str) -> None:
        """As if it had never been taken."""
        durable_files.remove(self._file(command_id))
        self._entries.pop(command_id, None)

    def forget_old(self) -> None:
        """What has long been acknowledged."""
        before = self._wall_clock() - KEEP_ACKNOWLEDGED_SECONDS
        for entry in list(self):
            if not entry.is_open and entry.changed_at < before:
                self.forget(entry.id)

    def _keep(self, entry: Entry) -> Entry:
        durable_files.write_document(self._file(entry.id), asdict(entry))
        self._entries[entry.id] = entry
        return entry

    def _file(self, command_id: str) -> Path:
        return self._directory / f"{command_id}.json"


def transfer_of(command: Command) -> str | None:
    """The id that both ends of a direct road know, where the command has one; else the service's own."""
    told = command.spec.get("transferId")
    return told if isinstance(told, str) and re.fullmatch("[0-9a-z]{1,64}", told) else command.transfer_id


def _read(path: Path) -> Entry | None:
    document = durable_files.read_document(path)
    if document is None:
        return None
    try:
        process, ending = document.pop("process"), document.pop("ending")
        return Entry(
            **{**document, "state": CommandState(document["state"])},
            process=None if process is None else ProcessMark(**process),
            ending=None if ending is None else Ending(**ending),
        )
    except (KeyError, TypeError, ValueError):
        raise StateUnreadable(f"{path} was not written by this version of the agent; move it away to go on without it.") from None
