"""Data transfer nodes: machines with our agent, the commands that they carry out, and who may send to them. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from stagecoach.core.errors import GrantExceeded, NodeNotFound, PathRefused, StagecoachError
from stagecoach.core.paths import checked_path, is_inside

SYSTEM_PREFIX = "node:"
# Paths on a node begin at its receive or send directory, whatever that is called there.
ROOTS = ("/",)
# An answer with a new credential may be lost; the same agent may ask for it again for so long.
ENROLMENT_REPEAT_SECONDS = 600
INTRUDER_SHOWN_SECONDS = 24 * 3600
INVITATION_SECONDS = 7 * 24 * 3600
MOST_TROUBLES = 10
MOST_TROUBLE_CHARACTERS = 500


def system_name(node_id: str) -> str:
    """A node's name as a system."""
    return SYSTEM_PREFIX + node_id


def node_id_of(system: str) -> str | None:
    """The id of the node that a system's name means, whether there is one or not; None for a cluster's name."""
    return system.removeprefix(SYSTEM_PREFIX) if system.startswith(SYSTEM_PREFIX) else None


class NodeState(StrEnum):
    """Whether a node can be reached."""

    WAITING = "waiting"
    """For its agent to enrol."""
    ONLINE = "online"
    OFFLINE = "offline"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Node:
    """One row of ``nodes``, without what is secret. Times UTC."""

    id: str
    owner: str
    name: str
    created_at: datetime
    enrolment_expires_at: datetime | None = None
    enrolment_used_at: datetime | None = None
    enrolled_at: datetime | None = None
    revoked_at: datetime | None = None
    instance_id: str | None = None
    """Made by the agent when it enrolled: a second machine with a copied credential has another."""
    other_instance_at: datetime | None = None
    """When such a one last came."""
    name_told: str | None = None
    """The name that the agent knows."""
    last_seen_at: datetime | None = None
    agent_version: str | None = None
    platform: str | None = None
    receive_free_bytes: int | None = None
    send_free_bytes: int | None = None
    address: str | None = None
    """As the service saw it."""
    receiver: Mapping[str, object] | None = None
    """Where other nodes reach it directly: ``host``, ``port``, ``certificate_sha256``."""
    kinds: tuple[str, ...] = ()
    """Of commands that its agent can carry out; none said: the first ones."""
    health: tuple[str, ...] = ()
    parallel: int = 1
    """Commands at once."""

    def state(self, now: datetime, offline_after_seconds: float) -> NodeState:
        """What people are told."""
        if self.revoked_at is not None:
            return NodeState.REVOKED
        if self.enrolled_at is None or self.last_seen_at is None:
            return NodeState.WAITING
        is_near = now - self.last_seen_at < timedelta(seconds=offline_after_seconds)
        return NodeState.ONLINE if is_near else NodeState.OFFLINE

    def may_enrol(self, instance_id: str, now: datetime) -> bool:
        """Whether the enrolment token, which its bearer has, still holds: once, or again for the same agent whose answer
        was lost."""
        if self.revoked_at is not None or self.enrolment_expires_at is None:
            return False
        if self.enrolment_used_at is None:
            return now < self.enrolment_expires_at
        is_soon = now - self.enrolment_used_at < timedelta(seconds=ENROLMENT_REPEAT_SECONDS)
        return is_soon and instance_id == self.instance_id

    def told_health(self, now: datetime, check: NodeCommand | None = None) -> list[str]:
        """What its agent says, and what the service has noticed. ``check`` is the newest of its network."""
        noticed = []
        if self.other_instance_at is not None and now - self.other_instance_at < timedelta(seconds=INTRUDER_SHOWN_SECONDS):
            noticed.append(
                f"Another machine came with this node's credential at {self.other_instance_at:%Y-%m-%d %H:%M} UTC and was "
                "refused; if it was none of yours, make a new enrolment token and enrol the node again."
            )
        # One by a machine that was this node before says nothing of the one that is.
        if check is not None and check.ended_at is not None and (self.enrolled_at is None or check.ended_at >= self.enrolled_at):
            noticed += [
                f"Network check of {check.ended_at:%Y-%m-%d %H:%M} UTC: {words}" for words in troubles_of_check(check.result)
            ]
        return [*noticed, *self.health]


@dataclass(frozen=True, slots=True)
class AgentReport:
    """What an agent says of itself with each poll. ``running`` are the commands that it has, ``capacity`` how many more it
    takes."""

    instance_id: str
    version: str
    platform: str
    running: tuple[str, ...] = ()
    capacity: int = 0
    receive_free_bytes: int | None = None
    send_free_bytes: int | None = None
    health: tuple[str, ...] = ()
    receiver: Mapping[str, object] | None = None
    kinds: tuple[str, ...] = ()
    address: str | None = None
    expiring: tuple[str, ...] = ()
    """Of ``running``: moves whose ticket needs another URL."""


class CommandKind(StrEnum):
    """What a node is to do."""

    MOVE = "move"
    """Carry one leg of a transfer, between its disk and the staging object."""
    CHECK_NETWORK = "check_network"
    """Try whether it reaches the service and the store."""
    RECEIVE = "receive"
    """Keep a hidden folder open for another node's key, until it is cancelled."""
    SEND = "send"
    """Copy to another node's folder."""
    PLACE = "place"
    """Move what has arrived in the folder to its place."""
    DISCARD = "discard"
    """Remove the folder, or what an interrupted move left."""
    SEND_TO_STORE = "send_to_store"
    """Copy to a store that the node's owner has named."""


JOINS_PARTS = "join_parts"
"""Said among the kinds by agents whose ``place`` joins large files that have come in parts."""
FIRST_KINDS = frozenset({CommandKind.MOVE, CommandKind.CHECK_NETWORK, CommandKind.DISCARD})
"""What agents can do that say nothing of it."""
SIDE_KINDS = frozenset({CommandKind.RECEIVE, CommandKind.PLACE, CommandKind.DISCARD})
"""What moves no data of its own, and takes none of the places that a node's owner gives."""
# More than a user may have open: a folder that is not opened in time would send a transfer another way.
MOST_SIDE_COMMANDS = 400


def kinds_of(said: Sequence[str]) -> frozenset[CommandKind]:
    """What an agent can carry out; of kinds that this service does not know it gets none."""
    return frozenset(kind for kind in CommandKind if kind.value in said) if said else FIRST_KINDS


class CommandState(StrEnum):
    """Where a command is on its road."""

    HELD = "held"
    PENDING = "pending"
    DELIVERED = "delivered"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Nothing follows."""
        return self in ENDED


ENDED = frozenset({CommandState.DONE, CommandState.FAILED, CommandState.CANCELLED})
WITH_AGENT = frozenset({CommandState.DELIVERED, CommandState.RUNNING})
QUEUED = frozenset({CommandState.HELD, CommandState.PENDING})


@dataclass(frozen=True, slots=True)
class NodeCommand:
    """One row of ``node_commands``. ``number`` is its place in the queue, ``attempt`` how often it was delivered."""

    id: str
    node_id: str
    number: int
    kind: CommandKind
    name: str
    owner: str
    """Who asked for it."""
    created_at: datetime
    transfer_id: str | None = None
    state: CommandState = CommandState.PENDING
    spec: Mapping[str, object] = field(default_factory=dict)
    cancel_asked: bool = False
    delivered_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    lease_until: datetime | None = None
    attempt: int = 0
    result: Mapping[str, object] | None = None
    progress: Mapping[str, object] | None = None
    """What its agent last told of it: of one that sends to another node or to a store."""

    @property
    def is_side(self) -> bool:
        """Whether it takes none of the places that its node's owner gives."""
        return self.kind in SIDE_KINDS

    @property
    def shown_transfer_id(self) -> str | None:
        """Of the transfer that people see."""
        said = self.spec.get("transferId")
        return said if isinstance(said, str) else self.transfer_id

    def is_lost(self, now: datetime) -> bool:
        """Whether it is with an agent that has not been heard of for too long."""
        return self.state in WITH_AGENT and (self.lease_until is None or self.lease_until <= now)


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to send to a node; an invitation until somebody has redeemed it."""

    id: str
    node_id: str
    created_by: str
    created_at: datetime
    grantee: str | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    folder: str = "/"
    max_bytes: int | None = None
    used_bytes: int = 0
    """Of the transfers that were begun under it."""
    invitation_expires_at: datetime | None = None
    redeemed_at: datetime | None = None
    label: str | None = None

    def is_live(self, now: datetime) -> bool:
        """Whether its holder may send."""
        return self.grantee is not None and self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def refusal(self, path: str, size_bytes: int) -> StagecoachError | None:
        """Why it does not cover these bytes at this (checked) path."""
        # Nothing takes the folder's own place: what its owner is given is below it.
        if not is_inside(path, [self.folder]) or path == self.folder:
            return PathRefused(f"You may send below {self.folder} on this node, and nowhere else.", data={"roots": [self.folder]})
        if self.max_bytes is not None and self.used_bytes + size_bytes > self.max_bytes:
            left = max(0, self.max_bytes - self.used_bytes)
            return GrantExceeded(
                f"You may send {left} more bytes to this node, and this transfer has {size_bytes}; ask its owner for more.",
                data={"limit_bytes": self.max_bytes, "used_bytes": self.used_bytes, "requested_bytes": size_bytes},
            )
        return None


@dataclass(frozen=True, slots=True)
class GrantUse:
    """Bytes of a transfer that are to count under a grant from now on."""

    grant_id: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class HeldGrant:
    """A grant as its holder sees it."""

    grant: Grant
    node_name: str
    node_owner: str


def troubles_of_check(result: Mapping[str, object] | None) -> list[str]:
    """What a network check found wrong, worst first. An agent wrote it on a stranger's machine: whatever has another shape
    is passed over, and all is bounded."""
    found: dict[str, list[str]] = {"failure": [], "warning": []}
    for way in _mappings(_mapping(_mapping(result).get("result")).get("ways")):
        for verdict in _mappings(way.get("verdicts")):
            level, words = verdict.get("level"), verdict.get("words")
            if level in ("failure", "warning") and isinstance(words, str):
                line = "".join(character if character.isprintable() else " " for character in words[:MOST_TROUBLE_CHARACTERS])
                found[str(level)].append(line)
    # The same is found on both ways where the machine itself is at fault.
    return list(dict.fromkeys(found["failure"] + found["warning"]))[:MOST_TROUBLES]


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    each = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [one for one in each if isinstance(one, Mapping)]


def covering_grant(grants: Sequence[Grant], path: str, size_bytes: int, now: datetime) -> Grant:
    """The first live one that covers these bytes at this path.

    Raises:
        NodeNotFound: none is live. PathRefused, GrantExceeded: none covers them.
    """
    refusal: StagecoachError = node_not_found()
    for grant in grants:
        if not grant.is_live(now):
            continue
        found = grant.refusal(path, size_bytes)
        if found is None:
            return grant
        # Of a folder that is granted, that its bytes are used up says more than that another folder is another.
        refusal = refusal if isinstance(refusal, GrantExceeded) else found
    raise refusal


def checked_folder(folder: str) -> str:
    """A folder below the receive directory. Raises PathRefused."""
    return checked_path(folder, ROOTS)


def node_not_found() -> NodeNotFound:
    """The one answer for nodes that do not exist, that are revoked, and of which the caller may not know."""
    return NodeNotFound("There is no node with this id that you may use.")
