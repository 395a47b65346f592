"""Takes back what a request had made when it fails: the row says why, and the worker cleans what cannot be cleaned now."""

from __future__ import annotations

import logging
from dataclasses import replace

from stagecoach.core.errors import StagecoachError, StaleVersion
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.clean_up import clean_up_now
from stagecoach.flows.toolbox import Toolbox

log = logging.getLogger(__name__)


async def abandon_request(tools: Toolbox, transfer: Transfer, error: StagecoachError) -> State | None:
    """The request fails: leave the row as failed with the reason, and take back what was made as far as it goes now.

    Returns the state that the row was found in.
    """
    for _ in range(5):
        now = tools.now()
        current = await tools.transfers.get(transfer.id)
        if current is None:
            return None
        # What this request made and could not note down before; the time, because a late job is waited for from now.
        known = replace(current, upload_id=transfer.upload_id, job_id=transfer.job_id, cleaned=False, changed_at=now)
        is_ours = current.state is State.PREPARING
        left = advance(known, Event.FAILED, now, code=error.code, reason=error.message) if is_ours else known
        try:
            # A cancel, or a worker that gave the request up, may have been first: then its word stays, and it cleans again.
            left = await tools.transfers.save(left, *([error.message] if is_ours else []), next_check_at=now)
        except StaleVersion:
            continue
        # What does not answer now would only make the caller wait twice; the worker cleans when it is back.
        if left.state.is_end and not error.retryable:
            await clean_up_now(tools, left)
        return current.state
    log.warning("transfer %s: changed all the time while its request failed", transfer.id)
    return None
