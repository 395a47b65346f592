"""What retries, idempotency keys, webhooks and the shared asking of the scheduler remember."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transfers", sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("transfers", sa.Column("resubmissions", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("transfers", sa.Column("bytes_at_submission", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("transfers", sa.Column("job_ended", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("transfers", sa.Column("restarts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("transfers", sa.Column("signed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("transfers", sa.Column("retry_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("transfers", sa.Column("first_job_id", sa.String(64), nullable=True))
    op.create_index("ix_transfers_system_first_job", "transfers", ["system", "first_job_id"])
    op.add_column("transfers", sa.Column("idempotency_key", sa.String(255), nullable=True))
    op.add_column("transfers", sa.Column("request_digest", sa.String(64), nullable=True))
    op.add_column("transfers", sa.Column("webhook_url", sa.Text(), nullable=True))
    # An index and not a constraint: SQLite adds no constraint to a table that is there. NULLs do not collide.
    op.create_index("ix_transfers_idempotency", "transfers", ["owner", "idempotency_key"], unique=True)
    # What is not cleaned is little beside all that was: quotas and bounds are counted over it.
    op.create_index("ix_transfers_cleaned_owner", "transfers", ["cleaned", "owner"])
    op.create_table(
        "system_polls",
        sa.Column("system", sa.String(64), nullable=False),
        sa.Column("recent_asks", sa.JSON(), nullable=False),
        sa.Column("next_ask_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("system", name="pk_system_polls"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(48), nullable=False),
        sa.Column("transfer_id", sa.String(26), nullable=False),
        sa.Column("host", sa.String(300), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trouble", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["transfer_id"], ["transfers.id"], ondelete="CASCADE", name="fk_webhook_deliveries_transfer_id"),
    )
    op.create_index("ix_webhook_deliveries_transfer_id", "webhook_deliveries", ["transfer_id"])
    op.create_index("ix_webhook_deliveries_due", "webhook_deliveries", ["next_try_at"])


def downgrade() -> None:
    raise NotImplementedError("Stagecoach migrates forward only; restore a backup to go back.")
