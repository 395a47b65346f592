"""Points on a transfer's road where it is stopped until a test lets it go on: before an outside action, or after it.

Who acts there (the service's store client, a scheduler command, the mover) waits with its action not begun, or done and
not yet answered. So a test can kill something at exactly this arrow.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from stagecoach.core.names import epoch_seconds_of

TRANSFER_ID = re.compile(r"(?<![0-9a-z])[0-9a-hjkmnp-tv-z]{26}(?![0-9a-z])")
# Nothing may hang for ever because a test died; a test's own patience is shorter.
LONGEST_HOLD_SECONDS = 150.0

Phase = Literal["before", "after"]


@dataclass(frozen=True)
class Point:
    """An outside action: ``who`` does ``what``; the ``nth`` time. ``late``: counted only once the test says so."""

    who: Literal["service", "mover", "command"]
    what: str
    nth: int = 1
    late: bool = False

    def __str__(self) -> str:
        return f"{self.who}: {self.what}" + (f" #{self.nth}" if self.nth > 1 else "")


@dataclass
class Gate:
    """Stops one transfer once, at one point. Without a point it only learns the transfer's id."""

    point: Point | None
    phase: Phase
    transfer_id: str | None = None
    job_id: str | None = None
    counts: bool = True
    seen: int = 0
    expected_at: float = 0.0
    """From when on: what an earlier transfer, that nobody told of, still does is not for this gate."""
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __str__(self) -> str:
        return f"{self.phase} {self.point}" if self.point else "at rest"


class Gates:
    """All gates of a test, asked by the store's proxy and by the scheduler's commands on their way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: list[Gate] = []
        self._receipts: set[str] = set()

    def expect(self, gate: Gate) -> None:
        """``gate`` belongs to the next transfer of which nothing was seen yet. One at a time."""
        with self._lock:
            assert all(other.transfer_id is not None or other.opened.is_set() for other in self._gates), "one at a time"
            # Ids tell milliseconds.
            gate.expected_at = math.floor(time.time() * 1000) / 1000
            self._gates.append(gate)

    def open(self, *gates: Gate) -> None:
        """Let go what waits there, or would."""
        for gate in gates:
            gate.opened.set()

    def open_all(self) -> None:
        """Whatever happened: nothing waits any more."""
        with self._lock:
            self.open(*self._gates)

    def receipt_written(self, transfer_id: str) -> None:
        """From now on the service's reading of receipts is a point."""
        with self._lock:
            self._receipts.add(transfer_id)

    def passing(
        self,
        who: str,
        what: str,
        phase: Phase,
        words: str,
        job_id: str | None = None,
        has_given_up: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Called where an action is about to happen, or has; returns when it may go on. ``words`` may hold a transfer's id.

        False: who wanted it gave up waiting, and has perhaps done it anew since. What it asked for must not come later.
        """
        found = TRANSFER_ID.search(words)
        gate = self._gate(found.group() if found else None, job_id)
        if gate is None or gate.point is None or (gate.point.who, gate.point.what) != (who, what):
            return True
        with self._lock:
            if what == "read receipt" and gate.transfer_id not in self._receipts:
                return True
            if gate.phase != phase or not gate.counts or gate.reached.is_set():
                return True
            gate.seen += 1
            if gate.seen < gate.point.nth or gate.opened.is_set():
                return True
            gate.reached.set()
        deadline = time.monotonic() + LONGEST_HOLD_SECONDS
        while not gate.opened.wait(1) and time.monotonic() < deadline:
            if has_given_up():
                return False
        # Killed and let go in the same second: what a dead one wanted a minute ago is no request on its way.
        return not has_given_up()

    def _gate(self, transfer_id: str | None, job_id: str | None) -> Gate | None:
        with self._lock:
            for gate in self._gates:
                if (transfer_id and gate.transfer_id == transfer_id) or (job_id and gate.job_id == job_id):
                    return gate
            for gate in self._gates:
                if transfer_id is None or gate.transfer_id is not None or gate.opened.is_set():
                    continue
                if epoch_seconds_of(transfer_id) >= gate.expected_at:
                    gate.transfer_id = transfer_id
                    return gate
        return None
