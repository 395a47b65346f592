"""The sending node waits for the receiving one; where that does not open in time the transfer goes through the staging area.

Only while nothing has arrived: what is half on the destination's disk is gone on with there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core.nodes import CommandState, NodeState, node_id_of
from stagecoach.core.roads import RECEIVER_SECONDS, called, may_fall_back
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Road, Transfer
from stagecoach.core.trying_again import next_attempt
from stagecoach.core.verdicts import Judgement, Verdict
from stagecoach.flows.begin_transfer import open_multipart
from stagecoach.flows.clean_up import end_job
from stagecoach.flows.direct_road import discard_arrived, receiver_of, relay_of
from stagecoach.flows.toolbox import Toolbox

UNAVAILABLE = "receiver_unavailable"
CLOSED = frozenset({"receiver_unreachable", "direct_unfit"})
"""What the sender says of a road that it could not take: it does not reach the receiver, or what it would send cannot go so."""
# That the staged road would meet as well.
_OF_EITHER_ROAD = frozenset({"path_refused", "target_exists", "receiver_full", "no_space", "size_mismatch"})
# With which the receiving node ends what it has opened, by itself and whatever the sender does.
_BY_RECEIVER = frozenset({"receiver_full", "size_mismatch"})


@dataclass(frozen=True, slots=True)
class Waited:
    """The leg after the look, and the line for its story; or why it cannot go on."""

    leg: Transfer
    message: str | None = None
    judgement: Judgement | None = None
    next_seconds: float | None = None


async def look_at_receiver(tools: Toolbox, leg: Transfer) -> Waited:
    """One look of a leg whose ``send`` is held: it is let go when the receiver runs. Saves nothing."""
    trouble = await _trouble(tools, leg)
    if trouble is None:
        await tools.system(leg.system).scheduler.release(leg.owner, leg.job_id or "")
        return Waited(leg, "The receiving node has opened its folder; the sending node begins.", next_seconds=0.0)
    if trouble.code in _OF_EITHER_ROAD:
        return Waited(leg, judgement=trouble)
    if trouble.verdict is Verdict.WAITING:
        return Waited(leg)
    if may_fall_back(leg):
        return await fall_back(tools, leg, trouble.reason or "")
    # What has arrived is worth waiting for a node that is away.
    if (leg.bytes_moved or leg.bytes_at_submission) and trouble.verdict is Verdict.LOOK_AGAIN:
        return Waited(replace(leg, job_reason=trouble.reason))
    return Waited(leg, judgement=replace(trouble, verdict=Verdict.FAILED))


async def closed_by_receiver(tools: Toolbox, leg: Transfer) -> Judgement | None:
    """Why the receiving node takes no more of a leg that is sent: the sender knows only that it is not let in."""
    command = await receiver_of(tools, leg)
    result = (command.result if command is not None else None) or {}
    if command is None or command.state is not CommandState.FAILED or result.get("code") not in _BY_RECEIVER:
        return None
    words = str(result.get("message") or "it takes no more.")
    return Judgement(Verdict.FAILED, str(result["code"]), f"The receiving node has closed its folder: {words}")


async def _trouble(tools: Toolbox, leg: Transfer) -> Judgement | None:
    """None: the receiver runs. WAITING: it may still come; LOOK_AGAIN: not soon; FAILED: not at all."""
    relay, command = await relay_of(tools, leg), await receiver_of(tools, leg)
    node = await tools.nodes.get(node_id_of(relay.system) or "") if relay is not None else None
    if node is None or node.revoked_at is not None:
        return Judgement(Verdict.FAILED, UNAVAILABLE, "The node that was to receive is revoked.")
    now = tools.now()
    if command is not None and command.state is CommandState.RUNNING and not command.is_lost(now):
        return None
    if command is None or command.state.is_end or command.cancel_asked:
        result = (command.result if command is not None else None) or {}
        words = str(result.get("message") or "it was ended there.")
        code = str(result.get("code") or UNAVAILABLE)
        return Judgement(Verdict.FAILED, code, f"{called(node)} does not receive: {words}")
    if node.state(now, tools.settings.nodes.offline_after_seconds) is not NodeState.ONLINE:
        return Judgement(Verdict.LOOK_AGAIN, UNAVAILABLE, f"{called(node)} is offline.")
    if (now - command.created_at).total_seconds() >= RECEIVER_SECONDS:
        reason = f"{called(node)} has not opened its folder within {RECEIVER_SECONDS:.0f} seconds."
        return Judgement(Verdict.LOOK_AGAIN, UNAVAILABLE, reason)
    return Judgement(Verdict.WAITING)


async def fall_back(tools: Toolbox, leg: Transfer, reason: str) -> Waited:
    """The leg on the staged road, where its next job is submitted at its next look. Makes the multipart; saves nothing.

    Can be repeated. The row says first that something will be in the store, so that it is looked for whatever happens.
    """
    if leg.road_reason is None:
        return Waited(replace(leg, road_reason=reason, updated_at=tools.now()), next_seconds=0.0)
    relay = await relay_of(tools, leg)
    if relay is not None:
        await discard_arrived(tools, relay, leg.attempt)
    if not await end_job(tools, leg):
        return Waited(leg)
    upload_id = await open_multipart(tools, leg)
    staged = replace(
        next_attempt(advance(leg, Event.RESUBMITTED, tools.now())),
        road=Road.STAGED,
        upload_id=upload_id,
        size_bytes=None,
        bytes_at_submission=0,
        file_count=None,
        files_moved=0,
        current_file=None,
        slow_since=None,
    )
    return Waited(
        staged, f"The direct road is not open: {leg.road_reason} It goes through the staging area instead.", next_seconds=0.0
    )
