"""Keeps what a staging job reads alive: fresh URLs in its ticket, and a fresh way to it, before the old ones end."""

from __future__ import annotations

import logging

from stagecoach.core.errors import FileMissing, StagecoachError
from stagecoach.core.transfer import State, Transfer
from stagecoach.flows.submit_job import prepare_job_directory
from stagecoach.flows.toolbox import JOB_URL_TTL_SECONDS, Toolbox
from stagecoach.flows.write_ticket import write_ticket, write_ticket_url

log = logging.getLogger(__name__)


async def renew_ticket(tools: Toolbox, transfer: Transfer) -> Transfer:
    """Sign all URLs anew, now; returns the transfer with its ``signed_at``. Saves nothing.

    Whatever somebody removed comes back: the ticket object (a bucket's rule), the job's directory (its owner).
    """
    signed = await write_ticket(tools, transfer)
    try:
        await write_ticket_url(tools, signed)
    except FileMissing:
        log.warning("transfer %s: its job directory was removed; it is made again", transfer.id)
        await prepare_job_directory(tools, signed)
    return signed


async def renew_ticket_in_time(tools: Toolbox, transfer: Transfer) -> Transfer:
    """As :func:`renew_ticket`, when a third of the URLs' life is over and the job may still need them.

    A queue may be longer than the life of a presigned URL; so may the job: the mover reads the ticket again when a URL
    is refused. What cannot be renewed now is tried again at the next look, and is an error when the time grows short.
    """
    if transfer.state not in {State.QUEUED, State.MOVING}:
        return transfer
    if transfer.operation is not None:
        return transfer  # nothing of its ticket ever ends
    # The ticket is an object of the bucket, so the bucket's rule ends its life as well.
    life = min(JOB_URL_TTL_SECONDS, tools.settings.s3.object_life_seconds)
    age = (tools.now() - (transfer.signed_at or transfer.created_at)).total_seconds()
    if age < life / 3:
        return transfer
    try:
        return await renew_ticket(tools, transfer)
    except StagecoachError as error:
        if age >= life * 2 / 3:
            raise
        log.warning("transfer %s: its ticket could not be signed anew yet: %s", transfer.id, error.message)
        return transfer
