"""Where a failed transfer goes on, on its owner's word: from what of it the store still has."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from stagecoach.core import names
from stagecoach.core.errors import Conflict
from stagecoach.core.nodes import GrantUse
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer, WaitPolicy
from stagecoach.core.trying_again import anew
from stagecoach.flows.check_bounds import bounds_of, check_place
from stagecoach.flows.fail_transfer import direct_end, parts_end
from stagecoach.flows.follow_leg import leg_of, take_over
from stagecoach.flows.keep_failed import is_settled
from stagecoach.flows.toolbox import Toolbox


async def unsettled(tools: Toolbox, transfer: Transfer) -> Transfer | None:
    """What must be tidied up before it can go on: the transfer itself, or the source leg that failed; None when nothing."""
    if not is_settled(transfer):
        return transfer
    leg = await leg_of(tools, transfer)
    return leg if leg is not None and _is_kept(leg) and not is_settled(leg) else None


class Resumed(NamedTuple):
    """The transfer where it goes on, the words for its story, and what is to be saved with it."""

    transfer: Transfer
    message: str
    grant_use: GrantUse | None = None


async def resume_transfer(tools: Toolbox, transfer: Transfer) -> Resumed:
    """Looks at the store; saves a relay's leg and nothing else.

    Raises:
        Conflict: nothing is left to go on from. TooManyTransfers: no place for the leg. StaleVersion: the leg moved on.
    """
    if transfer.is_relay:
        return await _of_leg(tools, transfer)
    return Resumed(*await _of_own_object(tools, transfer))


async def _of_leg(tools: Toolbox, relay: Transfer) -> Resumed:
    """With whichever leg failed. The leg is saved first: a relay in front of a failed leg would fail with it again."""
    now, leg = tools.now(), await leg_of(tools, relay)
    if leg is not None and leg.state is State.STAGED and leg.is_direct:
        staged, use = await take_over(tools, anew(advance(relay, Event.RETRY_ASKED, now)), leg)
        return Resumed(staged, "what has arrived is moved to its place again.", use)
    if leg is not None and leg.state is State.STAGED:
        found = await tools.store.head_object(leg.bucket, leg.object_key)
        if found is not None and found.size_bytes == leg.size_bytes:
            staged, use = await take_over(tools, anew(advance(relay, Event.RETRY_ASKED, now)), leg)
            return Resumed(staged, "the staged object is brought to its destination again.", use)
    if leg is not None and _is_kept(leg):
        system = tools.system(leg.system)
        await check_place(tools, leg.owner, system)
        again, message = await _of_own_object(tools, leg)
        leg = await tools.transfers.save(
            again, f"Retried: {message}", next_check_at=now, reopened_within=bounds_of(tools, system)
        )
    if leg is None or leg.state not in {State.PREPARING, State.QUEUED, State.MOVING}:
        raise Conflict("Nothing is kept that it could go on from; begin a new transfer.", data={"state": relay.state.value})
    reopened = replace(anew(advance(relay, Event.REOPENED, now)), expires_at=None)
    return Resumed(reopened, f"its source, {leg.system}, goes on sending.")


def _is_kept(leg: Transfer) -> bool:
    return leg.state is State.FAILED and leg.retry_until is not None


async def _of_own_object(tools: Toolbox, transfer: Transfer) -> tuple[Transfer, str]:
    """The transfer where it goes on, and the words for its story. Looks at the store; raises Conflict."""
    now, key = tools.now(), names.object_key(transfer.id)
    if transfer.operation is not None:
        return anew(advance(transfer, Event.RETRY_ASKED, now)), "another job does what is left of it."
    if transfer.is_direct:
        again = replace(anew(advance(transfer, Event.RETRY_ASKED, now)), expires_at=direct_end(tools))
        return again, "what is missing will be sent."
    limits = tools.system(transfer.system).settings.limits
    found = await tools.store.head_object(transfer.bucket, key)
    stored = None if found else await tools.store.list_parts(transfer.bucket, key, transfer.upload_id or "")
    if found is None and stored is None:
        raise Conflict("The store no longer has what was staged; begin a new transfer.", data={"state": transfer.state.value})
    if transfer.direction is Direction.DOWNLOAD:
        return anew(advance(transfer, Event.RETRY_ASKED, now)), "another job will go on sending."
    if found is not None:
        if found.size_bytes != transfer.size_bytes:
            raise Conflict(
                f"The staged object has {found.size_bytes} bytes where {transfer.size_bytes} were announced; "
                "begin a new transfer.",
                data={"state": transfer.state.value},
            )
        staged = anew(advance(transfer, Event.RETRY_ASKED, now))
        if transfer.object_etag is None:
            etag = found.etag.strip('"') or None
            life = tools.soon(tools.settings.s3.object_life_seconds)
            staged = replace(staged, object_etag=etag, bytes_staged=found.size_bytes, expires_at=life)
        return staged, "the staged object is brought to the cluster again."
    seconds = limits.upload_seconds if transfer.wait is WaitPolicy.HELD else limits.wait_in_job_seconds
    expires_at = min(tools.soon(seconds), parts_end(tools, transfer))
    reopened = replace(anew(advance(transfer, Event.REOPENED, now)), expires_at=expires_at)
    return reopened, f"{len(stored or [])} of {transfer.part_count} parts are there; the others can be put."
