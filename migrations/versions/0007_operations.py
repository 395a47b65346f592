"""Operations on files within a system (mv, cp, rm, compress, extract): transfers that stage nothing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transfers", sa.Column("operation", sa.String(16), nullable=True))
    op.add_column("transfers", sa.Column("source_path", sa.Text(), nullable=True))
    op.add_column("transfers", sa.Column("real_source_path", sa.Text(), nullable=True))
    op.add_column("transfers", sa.Column("operation_options", sa.JSON(), nullable=True))
    op.add_column("transfers", sa.Column("file_count", sa.BigInteger(), nullable=True))
    op.add_column("transfers", sa.Column("files_moved", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    raise NotImplementedError("Stagecoach migrates forward only; restore a backup to go back.")
