"""Data transfer nodes, their commands, and the grants to send to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("enrolment_sha256", sa.String(64), nullable=True),
        sa.Column("enrolment_expires_at", _TIME, nullable=True),
        sa.Column("enrolment_used_at", _TIME, nullable=True),
        sa.Column("credential_sha256", sa.String(64), nullable=True),
        sa.Column("enrolled_at", _TIME, nullable=True),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.Column("instance_id", sa.String(64), nullable=True),
        sa.Column("other_instance_at", _TIME, nullable=True),
        sa.Column("name_told", sa.String(100), nullable=True),
        sa.Column("last_seen_at", _TIME, nullable=True),
        sa.Column("agent_version", sa.String(64), nullable=True),
        sa.Column("platform", sa.String(200), nullable=True),
        sa.Column("receive_free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("send_free_bytes", sa.BigInteger(), nullable=True),
        sa.Column("address", sa.String(64), nullable=True),
        sa.Column("receiver", sa.JSON(), nullable=True),
        sa.Column("health", sa.JSON(), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_nodes"),
    )
    not_revoked = sa.text("revoked_at IS NULL")
    op.create_index(
        "ix_nodes_owner_name",
        "nodes",
        ["owner", "name"],
        unique=True,
        postgresql_where=not_revoked,
        sqlite_where=not_revoked,
    )
    op.create_index("ix_nodes_enrolment_sha256", "nodes", ["enrolment_sha256"], unique=True)
    op.create_index("ix_nodes_credential_sha256", "nodes", ["credential_sha256"], unique=True)
    op.create_table(
        "node_commands",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("node_id", sa.String(26), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("transfer_id", sa.String(26), nullable=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("cancel_asked", sa.Boolean(), nullable=False),
        sa.Column("cancel_told_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("delivered_at", _TIME, nullable=True),
        sa.Column("started_at", _TIME, nullable=True),
        sa.Column("ended_at", _TIME, nullable=True),
        sa.Column("lease_until", _TIME, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("hidden", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_node_commands"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], ondelete="CASCADE", name="fk_node_commands_node_id"),
    )
    op.create_index("ix_node_commands_transfer_id", "node_commands", ["transfer_id"])
    op.create_index("ix_node_commands_node_state", "node_commands", ["node_id", "state", "number"])
    op.create_index("ix_node_commands_node_name", "node_commands", ["node_id", "name"])
    op.create_table(
        "node_grants",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("node_id", sa.String(26), nullable=False),
        sa.Column("grantee", sa.String(255), nullable=True),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=False),
        sa.Column("invitation_sha256", sa.String(64), nullable=True),
        sa.Column("invitation_expires_at", _TIME, nullable=True),
        sa.Column("redeemed_at", _TIME, nullable=True),
        sa.Column("label", sa.String(200), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_node_grants"),
        sa.ForeignKeyConstraint(["node_id"], ["nodes.id"], ondelete="CASCADE", name="fk_node_grants_node_id"),
    )
    op.create_index("ix_node_grants_node_grantee", "node_grants", ["node_id", "grantee"])
    op.create_index("ix_node_grants_grantee", "node_grants", ["grantee"])
    op.create_index("ix_node_grants_invitation_sha256", "node_grants", ["invitation_sha256"], unique=True)


def downgrade() -> None:
    raise NotImplementedError("Stagecoach migrates forward only; restore a backup to go back.")
