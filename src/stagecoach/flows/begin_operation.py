"""Begins an operation on files within a system: everything is looked at first, then its job is made, and unmade on a failure."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from datetime import timedelta

from stagecoach.core import names
from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, NotFound, PathRefused, RequestUnderWay, StagecoachError
from stagecoach.core.operations import Operation, OperationOptions
from stagecoach.core.paths import is_inside
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.core.webhooks import webhook_target
from stagecoach.flows.abandon_request import abandon_request
from stagecoach.flows.answer_again import RepeatableRequest, find_begun
from stagecoach.flows.check_bounds import bounds_of, check_bounds
from stagecoach.flows.look_at_operation import OperationEnds, look_at_operation
from stagecoach.flows.submit_job import checked_account, choose_job_directory, prepare_job_directory, submit_job
from stagecoach.flows.toolbox import System, Toolbox
from stagecoach.flows.write_ticket import write_ticket

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """``path`` is the target, or what is to be removed; ``source`` None: there is none."""

    operation: Operation
    path: str
    source: str | None = None
    options: OperationOptions = field(default_factory=OperationOptions)
    account: str | None = None
    webhook_url: str | None = None


@dataclass(frozen=True, slots=True)
class BegunOperation:
    """``is_repeated``: it was begun by an earlier request with the same key."""

    transfer: Transfer
    is_repeated: bool = False


async def begin_operation(
    tools: Toolbox,
    caller: Caller,
    system_name: str,
    request: OperationRequest,
    repeatable: RepeatableRequest | None = None,
) -> BegunOperation:
    """Ticket and job are made; the transfer is ``queued``. The store is not needed.

    Raises:
        InvalidRequest and below: nothing was made. Unavailable: nothing stays. RequestUnderWay: the same request came
            before and is being carried out.
    """
    system = tools.system_for(caller.username, system_name)
    if (earlier := await find_begun(tools, caller, repeatable)) is not None:
        return BegunOperation(earlier, is_repeated=True)
    account = checked_account(system, request.account)
    await check_bounds(tools, caller, system, None, repeatable)
    if request.webhook_url is not None:
        webhooks = tools.settings.webhooks
        webhook_target(request.webhook_url, webhooks.allowed_hosts, allow_http=webhooks.allow_http)
    ends = await look_at_operation(system, caller.username, request.operation, request.source, request.path, request.options)
    transfer = await _new_transfer(tools, caller, system, replace(request, account=account), ends)
    if repeatable is not None:
        transfer = replace(transfer, idempotency_key=repeatable.idempotency_key, request_digest=repeatable.digest)
    try:
        return BegunOperation(await _make(tools, system, transfer))
    except RequestUnderWay:
        # Both found nothing, and the other was first.
        if (earlier := await find_begun(tools, caller, repeatable)) is None:
            raise
        return BegunOperation(earlier, is_repeated=True)


async def _new_transfer(
    tools: Toolbox, caller: Caller, system: System, request: OperationRequest, ends: OperationEnds
) -> Transfer:
    now, transfer_id = tools.now(), tools.new_id()
    directory = await choose_job_directory(system, caller.username, transfer_id)
    vanishing = {Operation.MOVE: ends.real_source_path, Operation.REMOVE: ends.real_path}.get(request.operation)
    if vanishing is not None and is_inside(directory, [vanishing]):
        raise PathRefused("The job would work in a directory that it is to take away; leave the work directory where it is.")
    return Transfer(
        id=transfer_id,
        owner=caller.username,
        system=system.settings.name,
        direction=Direction.WITHIN,
        path=ends.path,
        real_path=ends.real_path,
        size_bytes=ends.size_bytes,
        part_size_bytes=0,
        part_count=0,
        bucket="",
        job_name=names.job_name(transfer_id),
        created_at=now,
        updated_at=now,
        changed_at=now,
        account=request.account,
        job_directory=directory,
        webhook_url=request.webhook_url,
        next_check_at=now + timedelta(seconds=tools.settings.worker.preparing_seconds),
        operation=request.operation,
        source_path=ends.source_path,
        real_source_path=ends.real_source_path,
        operation_options=ends.options,
    )


async def _make(tools: Toolbox, system: System, transfer: Transfer) -> Transfer:
    """Make everything outside, noting each thing before or as it is made, so that the worker can always unmake it."""
    assert transfer.operation is not None  # noqa: S101 - it was made so
    await tools.transfers.add(transfer, f"{transfer.operation.noun} asked for.", bounds_of(tools, system))
    later = transfer.next_check_at
    try:
        transfer = await write_ticket(tools, transfer)
        await prepare_job_directory(tools, transfer)
        # From here on a job may exist, whatever becomes of this process: the row says so before the scheduler is asked.
        transfer = await tools.transfers.save(replace(transfer, submission_tried=True), next_check_at=later)
        # Held until the row knows it: a job of a request that broke off must not have moved or removed anything.
        transfer = await submit_job(tools, transfer, held=True)
        message = f"Job {transfer.job_id} is in the scheduler's queue."
        ready = advance(transfer, Event.PREPARED, tools.now())
        saved = await tools.transfers.save(ready, message, next_check_at=tools.soon(tools.settings.worker.poll_min_seconds))
    except StagecoachError as error:
        found = await abandon_request(tools, transfer, error)
        if found in {State.CANCELLING, State.CANCELLED} and isinstance(error, NotFound | Conflict):
            # It stumbled over what the cancel had changed or removed under it.
            raise Conflict("The transfer was cancelled while it was being prepared.") from error
        raise
    try:
        await system.scheduler.release(saved.owner, saved.job_id or "")
    except StagecoachError as error:
        log.warning("transfer %s: the worker will release its job: %s", saved.id, error.message)
    tools.nudge_worker()
    return saved
