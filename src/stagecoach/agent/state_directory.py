"""Where an agent keeps what must outlive it: who it is, what it has to do, and the mover's journals.

    agent.json          the enrolment, with the credential
    instance.json       the id of this installation, from before it is enrolled
    lock                held by the one agent that runs
    status.json         for ``stagecoach agent status``
    commands/ID.json    what it was told to do (``journal``)
    moves/TRANSFER/     the mover's state directory of one transfer
    arrivals/           notes of what arrives by the direct road (``arrivals``)
    sent-parts/         digests of the parts of large files that are being sent (``part_digests``)
    secrets/ID.json     the key that came with a command, while it runs (``command_secrets``)
    receiver/ rclone/   of the two programs of the direct road; certificates/ are other nodes'

All of it is the owner's alone (0700): the credential and presigned URLs are in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from stagecoach.agent.durable_files import read_document, write_document
from stagecoach.agent.errors import AlreadyRunning, DirectoryRefused, StateUnreadable


@dataclass(frozen=True)
class Enrolment:
    """What it takes to be a node."""

    server: str
    node_id: str
    name: str
    credential: str
    instance_id: str
    poll_seconds: int
    send: str
    receive: str
    token_sha256: str
    """Of the enrolment token that was used: another one in the environment means to enrol anew."""

    def __repr__(self) -> str:
        return f"Enrolment(server={self.server!r}, node_id={self.node_id!r})"


def default_state_directory() -> Path:
    """``$XDG_STATE_HOME/stagecoach/agent``, usually below ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "stagecoach" / "agent"


class StateDirectory:
    """One agent's; two never share one."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.commands = self.path / "commands"
        self.moves = self.path / "moves"
        self.status_file = self.path / "status.json"

    def prepare(self) -> None:
        """Makes it, for the owner alone. Raises DirectoryRefused."""
        try:
            for directory in (self.path, self.commands, self.moves):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.path.stat()
            if found.st_uid != os.geteuid():
                raise DirectoryRefused(f"The state directory {self.path} belongs to somebody else; name another with --state.")
            if stat.S_IMODE(found.st_mode) & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            raise DirectoryRefused(f"The state directory {self.path} cannot be made or used ({error.strerror}).") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """For as long as an agent runs. Raises AlreadyRunning, DirectoryRefused."""
        self.prepare()
        with open(self.path / "lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(
                    f"Another agent is running with the state directory {self.path}; each agent needs one of its own (--state)."
                ) from None
            yield

    def is_in_use(self) -> bool:
        """Whether an agent runs with it."""
        try:
            with open(self.path / "lock", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return False
        except BlockingIOError:
            return True
        except OSError:
            return False

    def instance_id(self) -> str:
        """Of this installation; written down before it is used: an enrolment whose answer was lost is repeated as itself."""
        path = self.path / "instance.json"
        known = (read_document(path) or {}).get("instance_id")
        if isinstance(known, str) and known:
            return known
        made = secrets.token_hex(16)
        write_document(path, {"instance_id": made})
        return made

    def enrolment(self) -> Enrolment | None:
        """None before the first. Raises StateUnreadable."""
        path = self.path / "agent.json"
        try:
            document = read_document(path)
        except OSError as error:
            raise StateUnreadable(f"{path} cannot be read ({error.strerror}).") from None
        if document is None:
            if path.exists():
                raise StateUnreadable(f"{path} is spoiled; enrol the node again with a new token.")
            return None
        try:
            return Enrolment(**{field.name: document[field.name] for field in fields(Enrolment)})
        except KeyError:
            raise StateUnreadable(f"{path} is of another version; enrol the node again with a new token.") from None

    def save_enrolment(self, enrolment: Enrolment) -> None:
        """Durably."""
        write_document(self.path / "agent.json", asdict(enrolment))


def require_directories(send: Path, receive: Path, state: Path) -> tuple[str, str]:
    """Both as absolute paths. Raises DirectoryRefused, also where a transfer could reach the agent's own state."""
    for directory, purpose in ((send, "send"), (receive, "receive")):
        if not directory.is_dir():
            raise DirectoryRefused(f"The {purpose} directory {directory} does not exist or is no directory.")
        given, own = directory.resolve(), state.resolve()
        if own.is_relative_to(given) or given.is_relative_to(own):
            raise DirectoryRefused(
                f"The state directory {state} and the {purpose} directory {directory} must not be inside one another:"
                " the state holds the node's credential."
            )
    return str(send.absolute()), str(receive.absolute())
