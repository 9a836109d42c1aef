"""How the GPUs and the machines of an attempt were while it ran, every few seconds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "hardware_sample",
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("gpu", sa.BigInteger(), nullable=False),
        sa.Column("t", sa.DateTime(timezone=True), nullable=False),
        sa.Column("activity_pct", sa.Double(), nullable=True),
        sa.Column("memory_gib", sa.Double(), nullable=True),
        sa.Column("power_w", sa.Double(), nullable=True),
        sa.Column("temperature_c", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempt.id"], name="fk_hardware_sample_attempt_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("attempt_id", "worker_id", "gpu", "t", name="pk_hardware_sample"),
    )


def downgrade() -> None:
    op.drop_table("hardware_sample")
