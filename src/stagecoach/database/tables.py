"""The tables. A change here needs a migration in ``migrations/versions``; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcTime(TypeDecorator[datetime]):
    """A timezone-aware UTC time; SQLite, which has no zones, holds it as naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone must not reach the database")
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _text(name: str, length: int | None = None, *, nullable: bool = True, **options: Any) -> Column[str]:
    return Column(name, String(length) if length else Text(), nullable=nullable, **options)


transfers = Table(
    "transfers",
    metadata,
    Column("id", String(26), primary_key=True),
    _text("owner", 255, nullable=False),
    _text("system", 64, nullable=False),
    _text("direction", 16, nullable=False),
    _text("path", nullable=False),
    _text("real_path", nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("part_size_bytes", BigInteger, nullable=False),
    Column("part_count", Integer, nullable=False),
    _text("bucket", 128, nullable=False),
    _text("job_name", 64, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("changed_at", UtcTime, nullable=False),
    _text("state", 16, nullable=False),
    Column("version", Integer, nullable=False),
    _text("wait", 16, nullable=False),
    _text("account", 64),
    _text("upload_id"),
    _text("job_directory"),
    Column("submission_tried", Boolean, nullable=False),
    _text("job_id", 64),
    _text("job_state", 64),
    _text("job_reason"),
    Column("job_exit_code", Integer),
    _text("job_log"),
    Column("job_missing_since", UtcTime),
    _text("object_etag", 255),
    Column("bytes_staged", BigInteger, nullable=False),
    Column("bytes_moved", BigInteger, nullable=False),
    Column("rate_bytes_per_second", Float, nullable=False),
    Column("digests", JSON, nullable=False),
    Column("proved", JSON, nullable=False),
    _text("code", 64),
    _text("reason"),
    Column("expires_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("cleaned", Boolean, nullable=False),
    Column("failed_looks", Integer, nullable=False),
    Column("next_check_at", UtcTime),
    _text("lease_owner", 64),
    Column("lease_until", UtcTime),
    Index("ix_transfers_due", "next_check_at"),
    Index("ix_transfers_owner_id", "owner", "id"),
    Index("ix_transfers_system_job", "system", "job_id"),
)

transfer_history = Table(
    "transfer_history",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("transfer_id", String(26), ForeignKey("transfers.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", UtcTime, nullable=False),
    _text("state", 16, nullable=False),
    _text("message", nullable=False),
)

buckets = Table(
    "buckets",
    metadata,
    _text("name", 128, nullable=False, primary_key=True),
    _text("owner", 255, nullable=False),
    _text("rules_fingerprint", 64, nullable=False),
    Column("checked_at", UtcTime, nullable=False),
)
