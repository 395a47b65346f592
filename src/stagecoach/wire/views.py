"""Turns a transfer into what its owner is shown, asked or told."""

from __future__ import annotations

from stagecoach.core.transfer import MEANING, Transfer
from stagecoach.wire import transfers as wire


def view(transfer: Transfer) -> wire.TransferView:
    """What its owner is shown."""
    plan = transfer.plan if transfer.size_bytes is not None and transfer.operation is None else None
    return wire.TransferView(
        id=transfer.id,
        owner=transfer.owner,
        system=transfer.system,
        direction=transfer.direction.value,
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
        part_size_bytes=plan.part_size_bytes if plan is not None else transfer.part_size_bytes,
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
        retry_until=transfer.retry_until,
    )
