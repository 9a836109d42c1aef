"""Owner, priority, plan and budget of a run; the GPUs of an attempt; plans by their hash."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("owner", sa.Text(), server_default="", nullable=False))
    op.add_column("run", sa.Column("priority", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("run", sa.Column("planned", postgresql.JSONB(), nullable=True))
    op.add_column("run", sa.Column("max_usd", sa.Double(), nullable=True))
    op.add_column("run", sa.Column("max_hours", sa.Double(), nullable=True))
    op.add_column("run", sa.Column("usd_per_hour", sa.Double(), nullable=True))
    op.add_column("run", sa.Column("budget_warned_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("attempt", sa.Column("gpus", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("attempt", sa.Column("gpu_name", sa.Text(), server_default="", nullable=False))
    op.create_table(
        "plan",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("content", postgresql.JSONB(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_plan")),
    )
    op.create_index(op.f("ix_plan_used_at"), "plan", ["used_at"])


def downgrade() -> None:
    op.drop_table("plan")
    op.drop_column("attempt", "gpu_name")
    op.drop_column("attempt", "gpus")
    for column in ("budget_warned_at", "usd_per_hour", "max_hours", "max_usd", "planned", "priority", "owner"):
        op.drop_column("run", column)
