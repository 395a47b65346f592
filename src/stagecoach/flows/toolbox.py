"""What every flow is handed: the memory, the store, the systems, the clock. Only ``wiring`` fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from stagecoach.core.errors import PermissionRefused, SystemNotFound
from stagecoach.core.names import new_transfer_id
from stagecoach.database.buckets import Buckets
from stagecoach.database.transfers import Transfers
from stagecoach.ports.files import Files
from stagecoach.ports.object_store import ObjectStore
from stagecoach.ports.scheduler import Scheduler
from stagecoach.settings import Settings, SystemSettings

# The life of URLs that only jobs see: as long as SigV4 allows, since the queue may be long.
JOB_URL_TTL_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class System:
    """A configured system with its plugs."""

    settings: SystemSettings
    scheduler: Scheduler
    files: Files
    acts_as: str | None = None
    """The one user that a local system can act as; None: as whoever asks."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Everything a flow may use."""

    settings: Settings
    transfers: Transfers
    buckets: Buckets
    store: ObjectStore
    systems: Mapping[str, System]
    now: Callable[[], datetime]
    random_bits: Callable[[int], int]
    mover_source: bytes
    nudge_worker: Callable[[], None] = field(default=lambda: None)
    """Tells a worker in this process that something is due at once."""

    def system(self, name: str) -> System:
        """The system of that name. Raises SystemNotFound."""
        try:
            return self.systems[name]
        except KeyError as error:
            known = ", ".join(sorted(self.systems)) or "none"
            raise SystemNotFound(f"System not found: this service has no system of that name (it has: {known}).") from error

    def system_for(self, username: str, name: str) -> System:
        """The system, if it can act as this user. Raises SystemNotFound, PermissionRefused."""
        system = self.system(name)
        if system.acts_as not in {None, username}:
            raise PermissionRefused(f"The system {name} is this machine and acts as {system.acts_as} only.")
        return system

    def new_id(self) -> str:
        """A fresh transfer id."""
        return new_transfer_id(self.now().timestamp(), self.random_bits)

    def soon(self, seconds: float) -> datetime:
        """``seconds`` from now."""
        return self.now() + timedelta(seconds=seconds)
