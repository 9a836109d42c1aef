"""Keep every metric also in buckets of 32 steps, which charts of long series read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# The points that are there already. Infinity is the greatest value but NaN, so `max` needs its filter, as `min` does.
FILL = """
INSERT INTO metric_bucket (stage_id, key, bucket, attempt_no, min, max, nonfinite, step, t, value)
SELECT stage_id, key, step / 32, attempt_no,
       min(value) FILTER (WHERE value NOT IN ('NaN', 'Infinity', '-Infinity')),
       max(value) FILTER (WHERE value NOT IN ('NaN', 'Infinity', '-Infinity')),
       count(*) FILTER (WHERE value IN ('NaN', 'Infinity', '-Infinity')),
       max(step), (array_agg(t ORDER BY step DESC))[1], (array_agg(value ORDER BY step DESC))[1]
FROM metric_point GROUP BY stage_id, key, step / 32, attempt_no
"""


def upgrade() -> None:
    op.create_table(
        "metric_bucket",
        sa.Column("stage_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("bucket", sa.BigInteger(), nullable=False),
        sa.Column("attempt_no", sa.BigInteger(), nullable=False),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        sa.Column("nonfinite", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("t", sa.DateTime(timezone=True), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["stage_id"], ["stage.id"], name="fk_metric_bucket_stage_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("stage_id", "key", "bucket", "attempt_no", name="pk_metric_bucket"),
    )
    op.execute(FILL)


def downgrade() -> None:
    op.drop_table("metric_bucket")
