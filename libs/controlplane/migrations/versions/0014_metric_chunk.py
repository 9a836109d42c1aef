"""Keep long metrics in chunks: many points in the arrays of one row, and buckets of three sizes beside them.

Rows of `metric_point` stay where they are. The loop `folding` moves those of ended attempts afterwards, a few at a time.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "metric_chunk",
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("first_step", sa.BigInteger(), nullable=False),
        sa.Column("attempt_no", sa.BigInteger(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("steps", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("times", sa.ARRAY(sa.Double()), nullable=False),
        sa.Column("lasts", sa.ARRAY(sa.Double()), nullable=False),
        sa.Column("mins", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column("maxs", sa.ARRAY(sa.Double()), nullable=True),
        sa.Column("nonfinites", sa.ARRAY(sa.BigInteger()), nullable=True),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name="fk_metric_chunk_stage_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("stage_id", "size", "key", "first_step", "attempt_no", name="pk_metric_chunk"),
    )


def downgrade() -> None:
    op.drop_table("metric_chunk")
