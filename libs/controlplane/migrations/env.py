"""Alembic's entry point. Runs in the transaction of the connection that `controlplane.db` passes in."""

from __future__ import annotations

from alembic import context

import controlplane.webhook_models  # noqa: F401 - adds its tables to Base.metadata
from controlplane.models import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run migrations through controlplane.db.migrate(url)")
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True)
with context.begin_transaction():
    context.run_migrations()
