"""Sees that an upload's object is whole in the store, and has the size that was announced."""

from __future__ import annotations

from dataclasses import dataclass, replace

from stagecoach.core import names
from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Transfer
from stagecoach.flows.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class Received:
    """The transfer in its next state (``staged``, or ``failed`` for a wrong size) with the line for its story."""

    transfer: Transfer
    message: str


async def receive_object(tools: Toolbox, transfer: Transfer, said_etag: str | None = None) -> Received | None:
    """None while there is no object. ``said_etag`` stands in where the store shows none. Saves nothing."""
    found = await tools.store.head_object(transfer.bucket, names.object_key(transfer.id))
    if found is None:
        return None
    now = tools.now()
    if found.size_bytes != transfer.size_bytes:
        reason = (
            f"The uploaded object has {found.size_bytes} bytes, but {transfer.size_bytes} were announced; "
            "nothing was written on the cluster. Begin a new transfer with the right size."
        )
        failed = advance(transfer, Event.FAILED, now, code="size_mismatch", reason=reason)
        return Received(replace(failed, bytes_staged=found.size_bytes), reason)
    staged = advance(transfer, Event.COMPLETED, now)
    life = tools.settings.s3.object_life_seconds
    return Received(
        replace(
            staged,
            object_etag=found.etag.strip('"') or (said_etag or "").strip('"') or None,
            bytes_staged=found.size_bytes,
            expires_at=tools.soon(life),
        ),
        f"The upload is complete: {found.size_bytes} bytes are in the staging area.",
    )
