"""Relays: from one system to another through one staging object. Pure: nothing is asked here.

A relay is two rows: the *source leg*, a download of the source's system, and the transfer that people see, an upload to
the destination that waits in ``receiving`` for the leg instead of for a client, and then brings the leg's object to its
place. The transfer leads: whatever becomes of it, its leg follows. See ``docs/decisions/0022-relays-are-two-rows.md``.
"""

from __future__ import annotations

import re
from dataclasses import replace

from stagecoach.core.errors import Conflict
from stagecoach.core.state_machine import Event
from stagecoach.core.transfer import State, Transfer

_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


def with_object_of(transfer: Transfer, leg: Transfer) -> Transfer:
    """The relay with the size, the cut, the ETag and the time of the object that its leg has staged."""
    if leg.is_direct:
        # Nothing is staged: what the leg has brought to the destination's disk is moved to its place there.
        return replace(with_progress_of(transfer, leg), bytes_staged=leg.bytes_staged, expires_at=leg.expires_at)
    plan = leg.plan
    return replace(
        transfer,
        size_bytes=plan.size_bytes,
        part_size_bytes=plan.part_size_bytes,
        part_count=plan.part_count,
        object_etag=_etag(leg),
        bytes_staged=plan.size_bytes,
        # The object is the leg's, and so is its time.
        expires_at=leg.expires_at,
    )


def _etag(leg: Transfer) -> str | None:
    """What the destination compares with what it has written: the store's ETag of the object.

    Where the store keeps none that tells of the parts, the digest of what the source's job has read stands in.
    """
    of_store = (leg.object_etag or "").strip('"').lower()
    of_source = next((proof["value"] for proof in leg.proved if proof.get("how") == "part_md5"), None)
    return of_source if of_source and (not of_store or _PLAIN_MD5.fullmatch(of_store)) else of_store or None


def with_progress_of(transfer: Transfer, leg: Transfer) -> Transfer:
    """A ``receiving`` relay with what its leg has brought into the staging area so far, as of a client's parts."""
    after = replace(transfer, road=leg.road, road_reason=leg.road_reason or transfer.road_reason, notices=leg.notices)
    if leg.is_direct:
        after = replace(
            after,
            rate_bytes_per_second=leg.rate_bytes_per_second,
            file_count=leg.file_count,
            files_moved=leg.files_moved,
            current_file=leg.current_file,
            rate_limit_bytes_per_second=leg.rate_limit_bytes_per_second,
        )
    elif transfer.is_direct:
        after = replace(after, rate_bytes_per_second=0.0, file_count=None, files_moved=0, current_file=None)
    # What is measured stays known, also where another road measures it anew: it counts once against a grant.
    size_bytes = leg.size_bytes if leg.size_bytes is not None else transfer.size_bytes
    if (size_bytes, leg.bytes_moved) != (transfer.size_bytes, transfer.bytes_staged):
        after = replace(
            after,
            size_bytes=size_bytes,
            bytes_staged=leg.bytes_moved,
            changed_at=leg.changed_at,
            updated_at=leg.updated_at,
        )
    return transfer if after == transfer else after


def needs_its_leg(transfer: Transfer) -> bool:
    """Whether the relay, or a retry of it, may still want what its leg has staged or will stage."""
    if transfer.state is State.FAILED:
        return transfer.retry_until is not None
    return not transfer.state.is_end and transfer.state is not State.CANCELLING


def last_event(transfer: Transfer, leg: Transfer) -> Event:
    """How a leg that is still open ends when nobody needs it any more."""
    is_fetched = transfer.state is State.DONE and leg.state is State.STAGED
    return Event.FETCHED if is_fetched else Event.CANCEL_ASKED


def require_no_leg(transfer: Transfer) -> None:
    """Raises Conflict: what is done to a leg is done to its relay."""
    if transfer.relay_of is not None:
        raise Conflict(
            f"This is the source leg of transfer {transfer.relay_of}; ask for that one, and its leg follows.",
            data={"state": transfer.state.value, "transfer_id": transfer.relay_of},
        )
