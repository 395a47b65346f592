"""Shows both legs of a transfer as they go, on standard error: bars on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from stagecoach.cli.running import Ongoing
from stagecoach.cli.words import is_relay, plain
from stagecoach.wire.transfers import TransferDetail


class Legs(Ongoing):
    """The callbacks of the client's methods."""

    def __init__(self, direction: str | None = None, size_bytes: int | None = None) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Progress(*columns, TimeRemainingColumn(), console=self._console, disable=not self._console.is_terminal)
        self._size_bytes = size_bytes
        self._state = ""
        self._tasks: dict[str, int] = {}
        if direction is not None:
            self._add(direction)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bars.stop()

    def begun(self, transfer_id: str) -> None:
        """Said at once: it is what everything else is asked by."""
        super().begun(transfer_id)
        self._say(f"Transfer {transfer_id}")

    def client_leg(self, bytes_done: int) -> None:
        """For ``report``."""
        if "client" in self._tasks:
            self._bars.update(self._bars.task_ids[self._tasks["client"]], completed=bytes_done, total=self._size_bytes)

    def cluster_leg(self, transfer: TransferDetail) -> None:
        """For ``on_look``."""
        self._size_bytes = transfer.size_bytes
        if is_relay(transfer) and transfer.source is not None:
            self._add("relay", transfer.source.system, transfer.system)
            self.client_leg(transfer.bytes_staged)
        self._add(transfer.direction)
        done = transfer.size_bytes if transfer.state in {"done", "staged"} else transfer.bytes_moved
        staged = transfer.direction == "upload" and transfer.state not in {"preparing", "receiving"}
        if staged and transfer.size_bytes is not None:
            self.client_leg(transfer.size_bytes)
        if transfer.direction == "download" or staged:
            self._bars.update(self._bars.task_ids[self._tasks["cluster"]], completed=done, total=transfer.size_bytes)
        if transfer.state != self._state:
            self._state = transfer.state
            self._say(f"{transfer.state}: {transfer.meaning}")

    def _add(self, direction: str, source: str = "you", destination: str = "cluster") -> None:
        if self._tasks:
            return
        names = {"client": plain(f"{source} → staging"), "cluster": plain(f"staging → {destination}")}
        if direction == "download":
            names = {"cluster": "cluster → staging", "client": "staging → you"}
        for position, (leg, name) in enumerate(names.items()):
            self._bars.add_task(f"{name:<18}", total=self._size_bytes)
            self._tasks[leg] = position

    def _say(self, line: str) -> None:
        if self._console.is_terminal:
            self._bars.console.print(plain(line), markup=False, highlight=False)
        else:
            print(plain(line), file=sys.stderr, flush=True)
