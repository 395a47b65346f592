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
    false,
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
    Column("size_bytes", BigInteger),
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
    _text("archive", 16),
    _text("account", 64),
    _text("upload_id"),
    _text("job_directory"),
    Column("submission_tried", Boolean, nullable=False),
    _text("job_id", 64),
    _text("job_state", 64),
    _text("job_reason"),
    Column("job_exit_code", Integer),
    Column("job_ended", Boolean, nullable=False, server_default=false()),
    _text("job_log"),
    Column("job_missing_since", UtcTime),
    _text("object_etag", 255),
    Column("bytes_staged", BigInteger, nullable=False),
    Column("bytes_moved", BigInteger, nullable=False),
    Column("rate_bytes_per_second", Float, nullable=False),
    Column("digests", JSON, nullable=False),
    Column("part_digests", JSON(none_as_null=True)),
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
    Column("attempt", Integer, nullable=False, server_default="1"),
    Column("resubmissions", Integer, nullable=False, server_default="0"),
    Column("bytes_at_submission", BigInteger, nullable=False, server_default="0"),
    Column("restarts", Integer, nullable=False, server_default="0"),
    Column("signed_at", UtcTime),
    Column("retry_until", UtcTime),
    _text("first_job_id", 64),
    _text("idempotency_key", 255),
    _text("request_digest", 64),
    _text("webhook_url"),
    _text("operation", 16),
    _text("source_path"),
    _text("real_source_path"),
    Column("operation_options", JSON(none_as_null=True)),
    Column("file_count", BigInteger),
    Column("files_moved", BigInteger, nullable=False, server_default="0"),
    _text("source_transfer_id", 26),
    _text("source_system", 64),
    _text("relay_of", 26),
    _text("road", 16, nullable=False, server_default="staged"),
    _text("wanted_road", 16),
    _text("road_reason"),
    Column("rate_limit_bytes_per_second", BigInteger),
    _text("current_file"),
    Column("notices", JSON(none_as_null=True)),
    Column("stall_noticed_at", UtcTime),
    Column("slow_since", UtcTime),
    Index("ix_transfers_due", "next_check_at"),
    Index("ix_transfers_cleaned_owner", "cleaned", "owner"),
    Index("ix_transfers_idempotency", "owner", "idempotency_key", unique=True),
    Index("ix_transfers_owner_id", "owner", "id"),
    Index("ix_transfers_system_job", "system", "job_id"),
    Index("ix_transfers_system_first_job", "system", "first_job_id"),
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

network_checks = Table(
    "network_checks",
    metadata,
    Column("transfer_id", String(26), ForeignKey("transfers.id", ondelete="CASCADE"), primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("report", JSON, nullable=False),
    Column("rates", JSON, nullable=False),
)

buckets = Table(
    "buckets",
    metadata,
    _text("name", 128, nullable=False, primary_key=True),
    _text("owner", 255, nullable=False),
    _text("rules_fingerprint", 64, nullable=False),
    Column("checked_at", UtcTime, nullable=False),
)

system_polls = Table(
    "system_polls",
    metadata,
    _text("system", 64, nullable=False, primary_key=True),
    Column("recent_asks", JSON, nullable=False),
    Column("next_ask_at", UtcTime, nullable=False),
    Column("version", Integer, nullable=False),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    _text("id", 48, nullable=False, primary_key=True),
    Column("transfer_id", String(26), ForeignKey("transfers.id", ondelete="CASCADE"), nullable=False, index=True),
    _text("host", 300, nullable=False),
    _text("url", nullable=False),
    _text("body", nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("next_try_at", UtcTime),
    Column("lease_until", UtcTime),
    Column("delivered_at", UtcTime),
    _text("trouble"),
    Index("ix_webhook_deliveries_due", "next_try_at"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String(26), primary_key=True),
    _text("name", 64, nullable=False),
    _text("password_hash", nullable=False),
    _text("username", 64),
    Column("is_admin", Boolean, nullable=False),
    Column("is_disabled", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("password_changed_at", UtcTime, nullable=False),
    Index("ix_accounts_name", "name", unique=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("account_id", String(26), ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False, index=True),
    _text("secret_sha256", 64, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Index("ix_sessions_secret_sha256", "secret_sha256", unique=True),
)

personal_tokens = Table(
    "personal_tokens",
    metadata,
    Column("id", String(26), primary_key=True),
    _text("owner", 255, nullable=False),
    Column("account_id", String(26), ForeignKey("accounts.id", ondelete="CASCADE"), index=True),
    _text("name", 100, nullable=False),
    Column("scopes", JSON, nullable=False),
    _text("secret_sha256", 64, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime),
    Column("expires_at", UtcTime, nullable=False, index=True),
    Index("ix_personal_tokens_owner", "owner"),
    Index("ix_personal_tokens_secret_sha256", "secret_sha256", unique=True),
)

log_in_tries = Table(
    "log_in_tries",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    _text("account_key", 64),
    _text("address", 64, nullable=False),
    Column("at", UtcTime, nullable=False, index=True),
    Index("ix_log_in_tries_account_key", "account_key", "at"),
    Index("ix_log_in_tries_address", "address", "at"),
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", UtcTime, nullable=False),
    _text("who", 255),
    _text("what", 64, nullable=False),
    _text("target", 255),
    _text("result", 64, nullable=False),
    _text("address", 64),
    _text("request_id", 128),
    Column("detail", JSON, nullable=False),
    Index("ix_audit_log_at", "at"),
)

setting_overrides = Table(
    "setting_overrides",
    metadata,
    _text("name", 128, nullable=False, primary_key=True),
    Column("value", JSON),
    Column("changed_at", UtcTime, nullable=False),
    _text("changed_by", 255, nullable=False),
)
