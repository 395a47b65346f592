"""Answers questions about transfers, each caller's own only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import JobNotFound, NotFound, PermissionRefused, TransferNotFound
from stagecoach.core.transfer import HistoryEntry, Transfer, TransferFilter
from stagecoach.core.webhooks import webhook_host
from stagecoach.database.network_checks import NetworkCheck
from stagecoach.flows.toolbox import Toolbox

_ID = re.compile(r"[0-9a-z]{26}")


async def show_transfer(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    """The transfer. Raises TransferNotFound also for somebody else's: its existence is not told."""
    transfer = await tools.transfers.get(transfer_id) if _ID.fullmatch(transfer_id) else None
    if transfer is None or not caller.may_see(transfer.owner):
        raise TransferNotFound("There is no transfer with this id among yours.")
    return transfer


async def show_own_transfer(tools: Toolbox, caller: Caller, transfer_id: str) -> Transfer:
    """For what carries data: an administrator sees everybody's transfers, and reads and writes nobody's files.

    Raises TransferNotFound, PermissionRefused.
    """
    transfer = await show_transfer(tools, caller, transfer_id)
    if transfer.owner != caller.username:
        raise PermissionRefused(f"This is {transfer.owner}'s transfer; its data is for nobody else.")
    return transfer


async def show_history(tools: Toolbox, caller: Caller, transfer_id: str) -> tuple[Transfer, list[HistoryEntry]]:
    """The transfer and its story, oldest line first. Raises TransferNotFound."""
    transfer = await show_transfer(tools, caller, transfer_id)
    return transfer, await tools.transfers.history(transfer.id)


async def show_network_check(tools: Toolbox, caller: Caller, transfer_id: str) -> NetworkCheck:
    """What its sending node found of the way to the receiving one. Raises TransferNotFound; NotFound: there is none (yet)."""
    transfer = await show_transfer(tools, caller, transfer_id)
    check = await tools.network_checks.of(transfer.source_transfer_id or transfer.id)
    if check is None:
        raise NotFound("There is no network check of this transfer: it does not go straight, or nothing has been found yet.")
    return check


@dataclass(frozen=True, slots=True)
class WebhookReport:
    """How telling a transfer's webhook goes."""

    host: str
    pending: int
    trouble: str | None


async def show_webhook(tools: Toolbox, transfer: Transfer) -> WebhookReport | None:
    """None where the transfer has no webhook."""
    if transfer.webhook_url is None:
        return None
    pending, trouble = await tools.deliveries.standing(transfer.id)
    return WebhookReport(webhook_host(transfer.webhook_url), pending, trouble)


async def list_transfers(tools: Toolbox, caller: Caller, wanted: TransferFilter) -> Sequence[Transfer]:
    """Newest first. Who is no administrator sees their own, whatever ``wanted.owner`` says."""
    if not caller.is_admin:
        wanted = replace(wanted, owner=caller.username)
    return await tools.transfers.page(wanted)


async def show_job(tools: Toolbox, caller: Caller, system_name: str, job_id: str) -> Transfer:
    """The transfer whose staging job this is; the newest, since schedulers use ids again. Raises JobNotFound."""
    tools.system(system_name)
    for transfer in await tools.transfers.find_by_job(system_name, job_id):
        if caller.may_see(transfer.owner):
            return transfer
    raise JobNotFound("Job not found: no staging job with this id among yours.")
