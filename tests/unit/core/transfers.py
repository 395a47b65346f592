"""Transfers to reason about."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stagecoach.core.transfer import Direction, Transfer

NOW = datetime(2030, 5, 17, 12, 0, 0, tzinfo=UTC)


def a_transfer(direction: Direction = Direction.UPLOAD, **changes: Any) -> Transfer:
    """An upload of 1000 bytes, changed as asked."""
    transfer = Transfer(
        id="0123456789abcdefghjkmnpqrs",
        owner="alice",
        system="alps",
        direction=direction,
        path="/home/alice/file",
        real_path="/home/alice/file",
        size_bytes=1000,
        part_size_bytes=8 * 1024 * 1024,
        part_count=1,
        bucket="stagecoach-alice",
        job_name="stagecoach-0123456789abcdefghjkmnpqrs",
        created_at=NOW,
        updated_at=NOW,
        changed_at=NOW,
    )
    return replace(transfer, **changes)
