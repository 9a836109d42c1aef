"""Forks, labels, notes, archived and deleted runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("labels", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False))
    op.add_column("run", sa.Column("notes", sa.Text(), server_default="", nullable=False))
    op.add_column("run", sa.Column("forked_from", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("run", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("stage", sa.Column("start_checkpoint", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("stage", "start_checkpoint")
    for column in ("deleted_at", "archived_at", "forked_from", "notes", "labels"):
        op.drop_column("run", column)
