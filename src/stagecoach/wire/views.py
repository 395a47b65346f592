"""Turns a transfer into what its owner is shown, asked or told."""

from __future__ import annotations

from typing import Any

from stagecoach.core.operations import Operation
from stagecoach.core.roads import seconds_left
from stagecoach.core.transfer import MEANING, Direction, Transfer
from stagecoach.wire import transfers as wire


def view(transfer: Transfer) -> wire.TransferView:
    """What its owner is shown."""
    has_plan = transfer.size_bytes is not None and transfer.operation is None and not transfer.is_direct
    plan = transfer.plan if has_plan else None
    least_part_bytes = 0 if transfer.is_direct else transfer.part_size_bytes
    return wire.TransferView(
        id=transfer.id,
        owner=transfer.owner,
        system=transfer.system,
        direction=transfer.direction.value,
        **_ends(transfer),
        relay_of=transfer.relay_of,
        operation=transfer.operation.value if transfer.operation is not None else None,
        source_path=transfer.source_path,
        path=transfer.path,
        archive=transfer.archive.value if transfer.archive is not None else None,
        size_bytes=transfer.size_bytes,
        state=transfer.state.value,
        meaning=MEANING[transfer.state],
        code=transfer.code,
        reason=transfer.reason or (None if transfer.state.is_end else transfer.job_reason),
        bytes_staged=transfer.bytes_staged,
        bytes_moved=transfer.bytes_moved,
        file_count=transfer.file_count,
        files_moved=transfer.files_moved,
        rate_bytes_per_second=transfer.rate_bytes_per_second,
        part_size_bytes=plan.part_size_bytes if plan is not None else least_part_bytes,
        part_count=plan.part_count if plan is not None else None,
        account=transfer.account,
        job_id=transfer.job_id,
        job_state=transfer.job_state,
        job_reason=transfer.job_reason,
        proved=tuple(wire.Proof(**entry) for entry in transfer.proved),
        created_at=transfer.created_at,
        updated_at=transfer.updated_at,
        expires_at=transfer.expires_at,
        ended_at=transfer.ended_at,
        road=transfer.road.value,
        wanted_road=transfer.wanted_road.value if transfer.wanted_road is not None else None,
        road_reason=transfer.road_reason,
        rate_limit_bytes_per_second=transfer.rate_limit_bytes_per_second,
        seconds_left=seconds_left(transfer),
        current_file=transfer.current_file,
        notices=transfer.notices,
        retry_until=transfer.retry_until,
    )


def watched_view(transfer: Transfer, leg: Transfer | None) -> wire.WatchedView:
    """The same with both legs of a relay; ``leg`` is its source leg, None where it has none (any more)."""
    return wire.WatchedView(**view(transfer).model_dump(), legs=legs_view(transfer, leg))


def legs_view(transfer: Transfer, leg: Transfer | None) -> tuple[wire.LegView, ...]:
    """Of a relay; of any other transfer none."""
    if not transfer.is_relay:
        return ()
    source = (_leg_view(leg, "source"),) if leg is not None else ()
    return (*source, _leg_view(transfer, "destination"))


def _leg_view(row: Transfer, leg: str) -> wire.LegView:
    shown = view(row)
    return wire.LegView(
        leg=leg,
        transfer_id=shown.id,
        job_log=row.job_log,
        **{name: getattr(shown, name) for name in wire.LegView.model_fields if name not in {"leg", "transfer_id", "job_log"}},
    )


def _ends(transfer: Transfer) -> dict[str, Any]:
    here = wire.EndView(system=transfer.system, path=transfer.path)
    if transfer.direction is Direction.DOWNLOAD or transfer.operation is Operation.REMOVE:
        return {"source": here, "destination": None}
    source = None
    if transfer.source_path is not None:
        source = wire.EndView(system=transfer.source_system or transfer.system, path=transfer.source_path)
    return {"source": source, "destination": here}
