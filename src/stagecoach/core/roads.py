"""Which road a transfer between two systems takes: straight from node to node, or through the staging area. Pure rules.

The direct road needs much of both ends. Where anything is missing the staged one, which needs nothing, is taken, and the
transfer says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from stagecoach.core.nodes import CommandKind, Node, NodeState, kinds_of
from stagecoach.core.transfer import Road, Transfer

RECEIVER_SECONDS = 60.0
"""How long the receiving node may take to open its folder."""
STALL_SECONDS = 60.0
SLOW_SECONDS = 60.0
SLOW_FRACTION = 0.25

AT_SOURCE = frozenset({CommandKind.SEND})
AT_DESTINATION = frozenset({CommandKind.RECEIVE, CommandKind.PLACE, CommandKind.DISCARD})


@dataclass(frozen=True, slots=True)
class RoadChoice:
    """The road, and why it is not the direct one."""

    road: Road
    reason: str | None = None

    @property
    def is_direct(self) -> bool:
        """Whether nothing is staged."""
        return self.road is Road.DIRECT


def choose_road(
    source: Node | None,
    destination: Node | None,
    wanted: Road | None,
    *,
    now: datetime,
    offline_after_seconds: float,
    can_seal: bool,
    has_digests: bool,
) -> RoadChoice:
    """``source`` and ``destination`` are None where they are no nodes. ``wanted`` None: whichever is open."""
    if wanted is Road.STAGED:
        return RoadChoice(Road.STAGED, "It was asked for so.")
    reason = _hindrance(source, destination, now, offline_after_seconds)
    if reason is None and not can_seal:
        reason = "This service has no key to seal with (nodes.sealing_key), so nodes are given no keys of each other."
    if reason is None and has_digests:
        reason = "A digest of the whole file was given, and only what is staged is compared with one."
    return RoadChoice(Road.STAGED, reason) if reason is not None else RoadChoice(Road.DIRECT)


def _hindrance(source: Node | None, destination: Node | None, now: datetime, offline_after_seconds: float) -> str | None:
    if source is None or destination is None:
        return "Only from one data transfer node to another there is a direct road."
    if source.id == destination.id:
        return "Both ends are the same node."
    for node, kinds in ((source, AT_SOURCE), (destination, AT_DESTINATION)):
        if node.state(now, offline_after_seconds) is not NodeState.ONLINE:
            return f"{called(node)} is offline."
        if not kinds <= kinds_of(node.kinds):
            return f"{called(node)} has an agent that does not know the direct road; update it."
    if not destination.receiver:
        return f"{called(destination)} tells no address at which others reach it."
    return None


def called(node: Node) -> str:
    """A node in words for people."""
    return f"{node.owner}'s node {node.name}"


def may_fall_back(leg: Transfer) -> bool:
    """Whether it may go through the staging area after all: nobody insists on the direct road, and nothing has arrived."""
    has_arrived = leg.bytes_moved > 0 or leg.bytes_at_submission > 0
    return leg.is_direct and leg.wanted_road is None and not has_arrived


def is_stalled(leg: Transfer, now: datetime) -> bool:
    """Whether no byte has come for so long, and that was not noticed yet."""
    is_silent = (now - leg.changed_at).total_seconds() >= STALL_SECONDS
    return is_silent and (leg.stall_noticed_at is None or leg.stall_noticed_at < leg.changed_at)


def is_slow(leg: Transfer, probe_bytes_per_second: float | None) -> bool:
    """Whether it goes much slower than the way can be expected to take: what its probe reached, or its cap."""
    if not probe_bytes_per_second:
        return False
    expected = min(probe_bytes_per_second, leg.rate_limit_bytes_per_second or probe_bytes_per_second)
    return leg.rate_bytes_per_second < expected * SLOW_FRACTION


def seconds_left(transfer: Transfer) -> float | None:
    """At the present rate; None where that cannot be told."""
    done = max(transfer.bytes_moved, transfer.bytes_staged) if transfer.is_relay else transfer.bytes_moved
    if transfer.state.is_end or transfer.size_bytes is None or transfer.rate_bytes_per_second <= 0:
        return None
    return max(0, transfer.size_bytes - done) / transfer.rate_bytes_per_second
