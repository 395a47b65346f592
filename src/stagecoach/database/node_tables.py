"""The tables of data transfer nodes, beside those of ``tables``. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, String, Table, Text, text

from stagecoach.core.nodes import ENDED, WITH_AGENT
from stagecoach.database.tables import UtcTime, metadata

nodes = Table(
    "nodes",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("owner", String(255), nullable=False),
    Column("name", String(100), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("enrolment_sha256", String(64)),
    Column("enrolment_expires_at", UtcTime),
    Column("enrolment_used_at", UtcTime),
    Column("credential_sha256", String(64)),
    Column("enrolled_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("instance_id", String(64)),
    Column("other_instance_at", UtcTime),
    Column("name_told", String(100)),
    Column("last_seen_at", UtcTime),
    Column("agent_version", String(64)),
    Column("platform", String(200)),
    Column("receive_free_bytes", BigInteger),
    Column("send_free_bytes", BigInteger),
    Column("address", String(64)),
    Column("receiver", JSON(none_as_null=True)),
    Column("kinds", JSON(none_as_null=True)),
    Column("health", JSON, nullable=False),
    Column("parallel", Integer, nullable=False),
    Index(
        "ix_nodes_owner_name",
        "owner",
        "name",
        unique=True,
        postgresql_where=text("revoked_at IS NULL"),
        sqlite_where=text("revoked_at IS NULL"),
    ),
    Index("ix_nodes_enrolment_sha256", "enrolment_sha256", unique=True),
    Index("ix_nodes_credential_sha256", "credential_sha256", unique=True),
)

node_commands = Table(
    "node_commands",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("node_id", String(26), ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("transfer_id", String(26), index=True),
    Column("name", String(64), nullable=False),
    Column("owner", String(255), nullable=False),
    Column("state", String(16), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("sealed", LargeBinary),
    Column("cancel_asked", Boolean, nullable=False),
    Column("cancel_told_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("delivered_at", UtcTime),
    Column("started_at", UtcTime),
    Column("ended_at", UtcTime),
    Column("lease_until", UtcTime),
    Column("attempt", Integer, nullable=False),
    Column("result", JSON(none_as_null=True)),
    Column("progress", JSON(none_as_null=True)),
    Column("hidden", Boolean, nullable=False),
    Index("ix_node_commands_node_state", "node_id", "state", "number"),
    Index("ix_node_commands_node_name", "node_id", "name"),
)

node_grants = Table(
    "node_grants",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("node_id", String(26), ForeignKey("nodes.id", ondelete="CASCADE"), nullable=False),
    Column("grantee", String(255)),
    Column("created_by", String(255), nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    Column("folder", Text, nullable=False),
    Column("max_bytes", BigInteger),
    Column("used_bytes", BigInteger, nullable=False),
    Column("invitation_sha256", String(64)),
    Column("invitation_expires_at", UtcTime),
    Column("redeemed_at", UtcTime),
    Column("label", String(200)),
    Index("ix_node_grants_node_grantee", "node_id", "grantee"),
    Index("ix_node_grants_grantee", "grantee"),
    Index("ix_node_grants_invitation_sha256", "invitation_sha256", unique=True),
)

IS_WITH_AGENT = node_commands.c.state.in_([state.value for state in WITH_AGENT])
HAS_ENDED = node_commands.c.state.in_([state.value for state in ENDED])
