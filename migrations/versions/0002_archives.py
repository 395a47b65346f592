"""Directories as archives: which kind, and a size that is not known until a job has measured it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # SQLite changes a column by making the table anew, and dropping the old one takes the history with it
    # (ON DELETE CASCADE): it is put aside meanwhile.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        op.execute("CREATE TEMPORARY TABLE kept_history AS SELECT * FROM transfer_history")
    with op.batch_alter_table("transfers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("archive", sa.String(length=16), nullable=True))
        batch_op.alter_column("size_bytes", existing_type=sa.BigInteger(), nullable=True)
    if is_sqlite:
        op.execute("DELETE FROM transfer_history")
        op.execute("INSERT INTO transfer_history SELECT * FROM kept_history")
        op.execute("DROP TABLE kept_history")


def downgrade() -> None:
    raise NotImplementedError("Stagecoach migrates forward only; restore a backup to go back.")
