"""Sweeps: runs with a common parent, their places in it, and what they were compared by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sweep",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("recipe", sa.Text(), nullable=False),
        sa.Column("spec", postgresql.JSONB(), nullable=False),
        sa.Column("owner", sa.Text(), server_default="", nullable=False),
        sa.Column("max_parallel", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
    )
    op.create_index("ix_sweep_project_created_at_id", "sweep", ["project", "created_at", "id"])
    op.add_column("run", sa.Column("sweep_id", sa.Text(), nullable=True))
    op.add_column("run", sa.Column("sweep_no", sa.BigInteger(), nullable=True))
    op.add_column("run", sa.Column("overrides", postgresql.JSONB(), nullable=True))
    op.add_column("run", sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.create_foreign_key(op.f("fk_run_sweep_id"), "run", "sweep", ["sweep_id"], ["id"])
    op.create_index("ix_run_sweep_id", "run", ["sweep_id"], postgresql_where=sa.text("sweep_id IS NOT NULL"))
    op.add_column("idempotency_key", sa.Column("sweep_id", sa.Text(), nullable=True))
    op.create_foreign_key(
        op.f("fk_idempotency_key_sweep_id"), "idempotency_key", "sweep", ["sweep_id"], ["id"], ondelete="CASCADE"
    )
    op.create_table(
        "rung",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("no", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("kept", sa.Boolean(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_rung_run_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", "no", name=op.f("pk_rung")),
    )


def downgrade() -> None:
    op.drop_table("rung")
    op.drop_column("idempotency_key", "sweep_id")
    for column in ("held", "overrides", "sweep_no", "sweep_id"):
        op.drop_column("run", column)
    op.drop_table("sweep")
