"""What every flow is handed: the memory, the store, the systems, the clock. Only ``wiring`` fills it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import cast

from stagecoach.core.asked_once import AskedOnce
from stagecoach.core.errors import PermissionRefused, SystemNotFound
from stagecoach.core.health import Health
from stagecoach.core.long_operations import LongOperations
from stagecoach.core.names import new_transfer_id
from stagecoach.core.nodes import Node, node_id_of
from stagecoach.database.accounts import Accounts
from stagecoach.database.audit_log import AuditLog
from stagecoach.database.buckets import Buckets
from stagecoach.database.followed_jobs import FollowedJobs
from stagecoach.database.inventory import Inventory
from stagecoach.database.log_in_tries import LogInTries
from stagecoach.database.network_checks import NetworkChecks
from stagecoach.database.node_commands import NodeCommands
from stagecoach.database.node_grants import NodeGrants
from stagecoach.database.node_polls import NodePolls
from stagecoach.database.nodes import Nodes
from stagecoach.database.personal_tokens import PersonalTokens
from stagecoach.database.sealing import Sealing
from stagecoach.database.setting_overrides import SettingOverrides
from stagecoach.database.system_polls import SystemPolls
from stagecoach.database.transfers import Transfers
from stagecoach.database.webhook_deliveries import WebhookDeliveries
from stagecoach.flows.node_calls import NodeCalls
from stagecoach.flows.node_system import NodeScheduler, NotOnNodes, unsupported
from stagecoach.flows.passwords import Passwords
from stagecoach.ports.compute import Compute
from stagecoach.ports.credentials import Login
from stagecoach.ports.files import Files
from stagecoach.ports.object_store import ObjectStore
from stagecoach.ports.scheduler import Scheduler
from stagecoach.settings import Settings, SystemSettings
from stagecoach.settings.run_time import SettingsInForce

# The life of URLs that only jobs see: as long as SigV4 allows, since the queue may be long.
JOB_URL_TTL_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Probed:
    """A service of a system: ``scheduler``, ``ssh``, ``s3``, or ``filesystem`` with its path."""

    service: str
    path: str | None = None


@dataclass(frozen=True, slots=True)
class System:
    """A configured system with its plugs, or a data transfer node in its place."""

    settings: SystemSettings
    scheduler: Scheduler
    files: Files
    compute: Compute
    acts_as: str | None = None
    """The one user that a local system can act as; None: as whoever asks."""
    login: Login | None = None
    """The way in, for who checks it; None: there is no door."""
    long_operations: LongOperations = field(default_factory=LongOperations)
    """Those under way on it."""
    node: Node | None = None
    """Where it is one, and somebody has looked at its row."""

    @property
    def node_id(self) -> str | None:
        """Of a data transfer node; None: it is a cluster, or this machine."""
        return node_id_of(self.settings.name)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Everything a flow may use."""

    settings_in_force: SettingsInForce
    setting_overrides: SettingOverrides
    transfers: Transfers
    followed_jobs: FollowedJobs
    polls: SystemPolls
    buckets: Buckets
    inventory: Inventory
    deliveries: WebhookDeliveries
    audit_log: AuditLog
    accounts: Accounts
    log_in_tries: LogInTries
    personal_tokens: PersonalTokens
    passwords: Passwords
    nodes: Nodes
    node_commands: NodeCommands
    network_checks: NetworkChecks
    node_polls: NodePolls
    node_grants: NodeGrants
    store: ObjectStore
    systems: Mapping[str, System]
    now: Callable[[], datetime]
    random_bits: Callable[[int], int]
    mover_source: bytes
    operation_sources: Mapping[str, bytes]
    """What lies beside the mover where files within a system are worked on: by file name, as it is shipped."""
    nudge_worker: Callable[[], None] = field(default=lambda: None)
    """Tells a worker in this process that something is due at once."""
    asked: AskedOnce = field(default_factory=AskedOnce)
    """Users' questions to schedulers, those of this process."""
    node_calls: NodeCalls = field(default_factory=NodeCalls)
    """The open questions of nodes' agents in this process."""
    health: dict[str, dict[Probed, Health]] = field(default_factory=dict)
    """By system, what this process has seen of its services (``flows/probe_systems.py``)."""

    @property
    def sealing(self) -> Sealing | None:
        """None: no key is set, and nothing can be sealed."""
        key = self.settings.nodes.sealing_key
        return Sealing(key.get_secret_value()) if key is not None else None

    @property
    def settings(self) -> Settings:
        """As they are at this moment: an administrator may change some."""
        return self.settings_in_force.now

    def system(self, name: str) -> System:
        """The system of that name, with its settings as they are at this moment. Raises SystemNotFound.

        Of a node's name whether there is such a node is not looked at (``flows/choose_system.py`` does).
        """
        if (node_id := node_id_of(name)) is not None:
            return self._node_system(name, node_id)
        try:
            system = self.systems[name]
            return replace(system, settings=self.settings_in_force.system(name) or system.settings)
        except KeyError as error:
            known = ", ".join(sorted(self.systems)) or "none"
            raise SystemNotFound(f"System not found: this service has no system of that name (it has: {known}).") from error

    def system_for(self, username: str, name: str) -> System:
        """The cluster, if it can act as this user. Raises SystemNotFound, PermissionRefused; NodeUnsupported: a node's name."""
        if node_id_of(name) is not None:
            raise unsupported()
        system = self.system(name)
        if system.acts_as not in {None, username}:
            raise PermissionRefused(f"The system {name} is this machine and acts as {system.acts_as} only.")
        return system

    def known_system(self, name: str) -> System | None:
        """As :meth:`system`; None where it is not configured any more."""
        return self.system(name) if name in self.systems or node_id_of(name) is not None else None

    def _node_system(self, name: str, node_id: str) -> System:
        scheduler = NodeScheduler(
            node_id,
            self.node_commands,
            self.nodes,
            self.transfers,
            now=self.now,
            new_id=self.new_id,
            wake=self.node_calls.wake,
            offline_after_seconds=self.settings.nodes.offline_after_seconds,
        )
        nothing = NotOnNodes()
        return System(self.settings.nodes.as_system(name), scheduler, cast(Files, nothing), cast(Compute, nothing))

    def new_id(self) -> str:
        """A fresh transfer id."""
        return new_transfer_id(self.now().timestamp(), self.random_bits)

    def soon(self, seconds: float) -> datetime:
        """``seconds`` from now."""
        return self.now() + timedelta(seconds=seconds)
