"""The keys that came with commands, one file a command in the agent's own directory, for as long as the command runs.

They are kept because the service may be away when the agent starts again, and the same key is to be opened again.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from stagecoach.agent import durable_files
from stagecoach.wire.agent import Secret


class CommandSecrets:
    """Methods raise OSError."""

    def __init__(self, directory: Path) -> None:
        """``directory`` is made when there is something to keep."""
        self._directory = directory

    def keep(self, command_id: str, secret: Secret) -> None:
        """Durably, and readable by the agent's user alone."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        durable_files.write_document(self._file(command_id), secret.model_dump())

    def of(self, command_id: str) -> Secret | None:
        """None where none came, or it was forgotten."""
        document = durable_files.read_document(self._file(command_id))
        return None if document is None else Secret.model_construct(**document)

    def forget(self, command_id: str) -> None:
        """Nothing where there is none."""
        if self._file(command_id).exists():
            durable_files.remove(self._file(command_id))

    def forget_all_but(self, wanted: Container[str]) -> None:
        """What an agent that was killed has left of commands that are over."""
        for path in self._directory.glob("*.json") if self._directory.is_dir() else ():
            if path.stem not in wanted:
                self.forget(path.stem)

    def _file(self, command_id: str) -> Path:
        return self._directory / f"{command_id}.json"
