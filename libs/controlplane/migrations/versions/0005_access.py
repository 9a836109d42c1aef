"""Roles, projects and expiry of API keys; projects of runs; the audit trail. Existing keys are admins of the default project."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("api_key", sa.Column("role", sa.Text(), server_default="admin", nullable=False))
    op.add_column("api_key", sa.Column("project", sa.Text(), server_default="default", nullable=False))
    op.add_column("api_key", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("run", sa.Column("project", sa.Text(), server_default="default", nullable=False))
    op.create_index("ix_run_project_name", "run", ["project", "name"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("key_name", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("made", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )


def downgrade() -> None:
    op.drop_table("audit")
    op.drop_index("ix_run_project_name", table_name="run")
    op.drop_column("run", "project")
    for column in ("expires_at", "project", "role"):
        op.drop_column("api_key", column)
