"""The direct road between two nodes: which road a transfer takes and why, its cap, what was noticed on it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("transfers", sa.Column("road", sa.String(16), nullable=False, server_default="staged"))
    op.add_column("transfers", sa.Column("wanted_road", sa.String(16), nullable=True))
    op.add_column("transfers", sa.Column("road_reason", sa.Text(), nullable=True))
    op.add_column("transfers", sa.Column("rate_limit_bytes_per_second", sa.BigInteger(), nullable=True))
    op.add_column("transfers", sa.Column("current_file", sa.Text(), nullable=True))
    op.add_column("transfers", sa.Column("notices", sa.JSON(), nullable=True))
    op.add_column("transfers", sa.Column("stall_noticed_at", _TIME, nullable=True))
    op.add_column("transfers", sa.Column("slow_since", _TIME, nullable=True))
    op.add_column("nodes", sa.Column("kinds", sa.JSON(), nullable=True))
    op.add_column("node_commands", sa.Column("progress", sa.JSON(), nullable=True))
    op.create_table(
        "network_checks",
        sa.Column("transfer_id", sa.String(26), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.Column("rates", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["transfer_id"], ["transfers.id"], name="fk_network_checks_transfer_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("transfer_id", name="pk_network_checks"),
    )


def downgrade() -> None:
    raise NotImplementedError("Stagecoach migrates forward only; restore a backup to go back.")
