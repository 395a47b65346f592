"""Begins a transfer from one system to another: both ends are looked at first, then the source leg is made.

Two rows are added at once: the leg, which is made as any download, and the transfer, which waits for it. Nothing is made
on the destination before the data is in the staging area: no allocation, no held job, nothing to take back.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from stagecoach.core.access import Caller
from stagecoach.core.errors import Conflict, PathRefused, RequestUnderWay, RoadClosed, StagecoachError, StaleVersion
from stagecoach.core.parts import offer_parts
from stagecoach.core.roads import RoadChoice, choose_road
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Archive, Direction, Road, Transfer, WaitPolicy
from stagecoach.database.transfers import NewRow
from stagecoach.flows.abandon_request import abandon_request
from stagecoach.flows.answer_again import RepeatableRequest, find_begun
from stagecoach.flows.begin_transfer import check_size, check_webhook, make_outside, new_transfer
from stagecoach.flows.check_bounds import bounds_of, check_bounds
from stagecoach.flows.choose_system import find_destination, find_source, granted
from stagecoach.flows.look_at_ends import look_at_destination, look_at_origin
from stagecoach.flows.look_at_files import End
from stagecoach.flows.submit_job import checked_account, job_directory_of
from stagecoach.flows.toolbox import System, Toolbox

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RelayEnd:
    """Where a relay begins or ends; ``account`` is who is charged for its job there."""

    system: str
    path: str
    account: str | None = None


@dataclass(frozen=True, slots=True)
class BegunRelay:
    """``is_repeated``: it was begun by an earlier request with the same key."""

    transfer: Transfer
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class _Ends:
    """What both systems have been asked."""

    source_system: System
    source: End
    source_account: str | None
    destination_system: System
    destination: End
    destination_account: str | None


async def begin_relay(
    tools: Toolbox,
    caller: Caller,
    source: RelayEnd,
    destination: RelayEnd,
    digests: Mapping[str, str] | None = None,
    archive: Archive | None = None,
    webhook_url: str | None = None,
    repeatable: RepeatableRequest | None = None,
    wanted_road: Road | None = None,
    rate_limit_bytes_per_second: int | None = None,
) -> BegunRelay:
    """The source leg is ``queued``, the transfer ``receiving``. ``digests`` are of the whole file, compared at its end.

    With ``archive`` the source is a directory, and the destination one that does not exist yet or is empty. Between two nodes
    it goes straight where it can, and else through the staging area; ``wanted_road`` insists on either.

    Raises:
        RoadClosed: there is no direct road, and nothing else is wanted. Nothing was made.
        InvalidRequest and below: nothing was made on either system. Unavailable: nothing stays. RequestUnderWay: the same
            request came before and is being carried out.
    """
    source_system = await find_source(tools, caller, source.system)
    destination_system = await find_destination(tools, caller, destination.system)
    if (earlier := await find_begun(tools, caller, repeatable)) is not None:
        return BegunRelay(earlier, is_repeated=True)
    choice = _choose_road(tools, source_system, destination_system, wanted_road, digests or {})
    source_account = checked_account(source_system, source.account)
    destination_account = checked_account(destination_system, destination.account)
    await check_bounds(tools, caller, source_system, None, repeatable)
    await check_bounds(tools, caller, destination_system, 0, repeatable)
    check_webhook(tools, webhook_url)
    found_source = await _look_at_source(tools, caller, source_system, destination_system, source.path, archive, repeatable)
    size_bytes = found_source.size_bytes or 0
    found_destination = await look_at_destination(destination_system, caller.username, destination.path, size_bytes, archive)
    _require_two_files(source_system, found_source, destination_system, found_destination)
    # Both only to be refused now, and not when the data has been on its way for hours.
    await job_directory_of(destination_system, caller.username, "any")
    await destination_system.scheduler.try_directives(caller.username, destination_account)
    ends = _Ends(source_system, found_source, source_account, destination_system, found_destination, destination_account)
    leg, transfer = (
        replace(
            row,
            road=choice.road,
            road_reason=choice.reason,
            wanted_road=wanted_road,
            rate_limit_bytes_per_second=rate_limit_bytes_per_second,
        )
        for row in _rows(tools, caller, ends, digests or {}, archive, webhook_url)
    )
    if repeatable is not None:
        transfer = replace(transfer, idempotency_key=repeatable.idempotency_key, request_digest=repeatable.digest)
    try:
        async with granted(tools, caller, destination_system, found_destination.real_path, size_bytes):
            return BegunRelay(await _make(tools, ends, leg, transfer))
    except RequestUnderWay:
        # Both found nothing, and the other was first.
        if (earlier := await find_begun(tools, caller, repeatable)) is None:
            raise
        return BegunRelay(earlier, is_repeated=True)


def _choose_road(
    tools: Toolbox, source: System, destination: System, wanted: Road | None, digests: Mapping[str, str]
) -> RoadChoice:
    choice = choose_road(
        source.node,
        destination.node,
        wanted,
        now=tools.now(),
        offline_after_seconds=tools.settings.nodes.offline_after_seconds,
        can_seal=tools.sealing is not None,
        has_digests=bool(digests),
    )
    if wanted is Road.DIRECT and not choice.is_direct:
        raise RoadClosed(f"There is no direct road: {choice.reason} Without road=direct it goes through the staging area.")
    is_between_nodes = source.node is not None and destination.node is not None
    return choice if is_between_nodes else RoadChoice(choice.road)


async def _look_at_source(
    tools: Toolbox,
    caller: Caller,
    system: System,
    destination: System,
    path: str,
    archive: Archive | None,
    repeatable: RepeatableRequest | None,
) -> End:
    """It exists, may be read, and is not too large for either system or for the staging area, as far as is known."""
    found = await look_at_origin(system, caller.username, path, archive)
    if found.size_bytes is not None:
        check_size(system, found.size_bytes)
        check_size(destination, found.size_bytes)
        await check_bounds(tools, caller, system, found.size_bytes, repeatable)
    return found


def _require_two_files(source_system: System, source: End, destination_system: System, destination: End) -> None:
    if (source_system.settings.name, source.real_path) == (destination_system.settings.name, destination.real_path):
        raise PathRefused("Source and destination are the same file; name another destination.")


def _rows(
    tools: Toolbox, caller: Caller, ends: _Ends, digests: Mapping[str, str], archive: Archive | None, webhook_url: str | None
) -> tuple[Transfer, Transfer]:
    """The source leg and the transfer, both ``preparing``."""
    source, destination = ends.source, ends.destination
    leg = new_transfer(
        tools, caller, ends.source_system, Direction.DOWNLOAD, source, ends.source_account, archive, webhook_url=None
    )
    if source.size_bytes is None:
        limits = [system.settings.limits.max_file_size_bytes for system in (ends.source_system, ends.destination_system)]
        limit = min((each for each in limits if each is not None), default=None)
        offer = offer_parts(limit, tools.settings.s3.max_part_size_bytes, tools.settings.s3.min_part_size_bytes)
        leg = replace(leg, part_size_bytes=offer.part_size_bytes, part_count=offer.part_count)
    transfer = new_transfer(
        tools,
        caller,
        ends.destination_system,
        Direction.UPLOAD,
        replace(destination, size_bytes=source.size_bytes),
        ends.destination_account,
        archive,
        webhook_url,
    )
    transfer = replace(
        transfer,
        # Its job is submitted when its object is whole: there is nothing to wait for, held or in the job.
        wait=WaitPolicy.HELD,
        digests=dict(digests),
        source_transfer_id=leg.id,
        source_system=leg.system,
        source_path=leg.path,
        bucket=leg.bucket,
    )
    return replace(leg, relay_of=transfer.id), transfer


async def _make(tools: Toolbox, ends: _Ends, leg: Transfer, transfer: Transfer) -> Transfer:
    """Make the leg's part outside; the rows say first what is made, so that the worker can always unmake it."""
    source, destination = ends.source_system, ends.destination_system
    leg = replace(leg, job_directory=await job_directory_of(source, leg.owner, leg.id))
    asked = f"Transfer of a {transfer.what} from {leg.system} asked for."
    await tools.transfers.add_together(
        [
            NewRow(leg, f"The first leg of transfer {transfer.id} asked for.", bounds_of(tools, source)),
            NewRow(transfer, asked, bounds_of(tools, destination)),
        ]
    )
    try:
        leg = await make_outside(tools, leg)
        ready = advance(transfer, Event.PREPARED, tools.now())
        message = f"Staging job {leg.job_id} on {leg.system} is in the queue; it will bring the {leg.what} to the staging area."
        if leg.is_direct:
            message = f"{leg.system} will send the {leg.what} straight to {transfer.system}."
        elif leg.road_reason is not None:
            message += f" There is no direct road: {leg.road_reason}"
        return await tools.transfers.save(ready, message, next_check_at=tools.soon(tools.settings.worker.poll_min_seconds))
    except StagecoachError as error:
        await abandon_request(tools, transfer, error)
        if isinstance(error, StaleVersion):
            raise Conflict("The transfer was cancelled while it was being prepared.") from error
        raise
