"""Relays: an upload whose object a source leg, a download of another system, has put into the store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transfers", sa.Column("source_transfer_id", sa.String(26), nullable=True))
    op.add_column("transfers", sa.Column("source_system", sa.String(64), nullable=True))
    op.add_column("transfers", sa.Column("relay_of", sa.String(26), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("Stagecoach migrates forward only; restore a backup to go back.")
