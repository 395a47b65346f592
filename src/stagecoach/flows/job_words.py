"""Reads what a job tells of its work: from the store, or from its own directory where nothing is staged."""

from __future__ import annotations

from stagecoach.core import names
from stagecoach.core.errors import StagecoachError
from stagecoach.core.job_scripts import PROGRESS_FILE, RECEIPT_FILE
from stagecoach.core.tickets import MAX_RECEIPT_BYTES, Progress, read_progress, read_receipt
from stagecoach.core.transfer import Transfer
from stagecoach.core.verdicts import Receipt
from stagecoach.flows.direct_words import direct_receipt
from stagecoach.flows.toolbox import Toolbox


async def job_receipt(tools: Toolbox, transfer: Transfer, *, ended: bool) -> Receipt | None:
    """The receipt; None while there is none.

    A mover whose store was away leaves it in its directory alone, so that is looked into once the job has ``ended``.
    """
    if transfer.is_direct:
        return await direct_receipt(tools, transfer)
    receipt = None
    if transfer.operation is None:
        content = await tools.store.read_object(transfer.bucket, names.receipt_key(transfer.id), MAX_RECEIPT_BYTES)
        receipt = read_receipt(content, transfer)
    if receipt is None and (ended or transfer.operation is not None):
        receipt = read_receipt(await _in_directory(tools, transfer, RECEIPT_FILE), transfer)
    return receipt


async def job_progress(tools: Toolbox, transfer: Transfer) -> Progress | None:
    """What the mover of this attempt last told; None when it has told nothing."""
    if transfer.operation is not None:
        return read_progress(await _in_directory(tools, transfer, PROGRESS_FILE), transfer)
    content = await tools.store.read_object(transfer.bucket, names.progress_key(transfer.id), MAX_RECEIPT_BYTES)
    return read_progress(content, transfer)


async def _in_directory(tools: Toolbox, transfer: Transfer, name: str) -> bytes | None:
    if transfer.job_directory is None:
        return None
    files = tools.system(transfer.system).files
    try:
        return await files.read_file(transfer.owner, f"{transfer.job_directory}/{name}", MAX_RECEIPT_BYTES)
    except StagecoachError as error:
        # What the owner put there is no receipt; what cannot be asked for now may be one.
        if error.retryable:
            raise
        return None
