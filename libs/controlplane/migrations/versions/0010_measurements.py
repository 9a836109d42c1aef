"""What finished stages took, for later plans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "measurement",
        sa.Column("attempt_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("alike", sa.Text(), nullable=False),
        sa.Column("depth", sa.BigInteger(), nullable=True),
        sa.Column("work", sa.Double(), nullable=True),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("gpus", sa.BigInteger(), nullable=False),
        sa.Column("flops_per_s", sa.Double(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_measurement")),
    )
    op.create_index("ix_measurement_alike_measured_at", "measurement", ["alike", "measured_at"])


def downgrade() -> None:
    op.drop_table("measurement")
