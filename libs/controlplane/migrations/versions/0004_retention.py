"""Pins of checkpoints, and the moment from which the files of a checkpoint may be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoint", sa.Column("pinned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("checkpoint", sa.Column("delete_after", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_checkpoint_delete_after", "checkpoint", ["delete_after"], postgresql_where=sa.text("delete_after IS NOT NULL")
    )


def downgrade() -> None:
    op.drop_index("ix_checkpoint_delete_after", table_name="checkpoint")
    op.drop_column("checkpoint", "delete_after")
    op.drop_column("checkpoint", "pinned_at")
