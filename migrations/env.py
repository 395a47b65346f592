"""Runs the migrations on the connection that ``stagecoach.database.engine.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from stagecoach.database.node_tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise SystemExit("run the migrations with 'stagecoach migrate'")
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
