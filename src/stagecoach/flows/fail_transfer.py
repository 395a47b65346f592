"""Ends a transfer that cannot go on by itself, and says until when its owner may have it go on from what is staged."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from stagecoach.core.state_machine import Event, advance
from stagecoach.core.transfer import Direction, State, Transfer
from stagecoach.core.trying_again import Kept, kept_after
from stagecoach.flows.toolbox import Toolbox


def fail(tools: Toolbox, transfer: Transfer, code: str | None, reason: str | None) -> Transfer:
    """``failed``, with ``retry_until`` where another try can go on from what there is. Saves nothing.

    Raises:
        Conflict: the transfer cannot fail where it is.
    """
    failed = advance(transfer, Event.FAILED, tools.now(), code=code, reason=reason)
    failed = replace(failed, current_file=None)
    if failed.is_direct and failed.size_bytes and failed.bytes_moved >= failed.size_bytes:
        # What is not compared and at its place is not all there.
        failed = replace(failed, bytes_moved=failed.size_bytes - 1)
    return replace(failed, retry_until=_kept_until(tools, transfer, code))


def end_line(failed: Transfer) -> str:
    """The line of the story for a failure."""
    reason = failed.reason or "It failed."
    if failed.retry_until is None:
        return reason
    if failed.operation is not None:
        return f"{reason} It can be retried until {failed.retry_until:%Y-%m-%d %H:%M} UTC."
    if failed.is_direct:
        return f"{reason} What arrived is kept until {failed.retry_until:%Y-%m-%d %H:%M} UTC; a retry sends what is missing."
    return f"{reason} What is staged is kept until {failed.retry_until:%Y-%m-%d %H:%M} UTC; a retry goes on from it."


def parts_end(tools: Toolbox, transfer: Transfer) -> datetime:
    """When the store itself takes back the parts of an upload that was never completed."""
    days = tools.settings.s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days
    return transfer.created_at + timedelta(days=days)


def direct_end(tools: Toolbox) -> datetime:
    """How long what goes straight may wait, from now: nothing in the store ends with it."""
    return tools.soon(tools.settings.s3.bucket_lifecycle_configuration.abort_incomplete_multipart_days * 24 * 3600)


def _kept_until(tools: Toolbox, transfer: Transfer, code: str | None) -> datetime | None:
    system = tools.known_system(transfer.system)
    if system is None or transfer.state is State.PREPARING or kept_after(transfer, code) is Kept.NOTHING:
        return None
    seconds = system.settings.limits.keep_failed_seconds
    is_received = transfer.direction is Direction.UPLOAD and transfer.state is not State.RECEIVING
    has_parts = transfer.operation is None and not transfer.is_direct
    end = transfer.expires_at if is_received else parts_end(tools, transfer) if has_parts else None
    until = tools.soon(seconds) if end is None else min(tools.soon(seconds), end)
    return until if until > tools.now() else None
