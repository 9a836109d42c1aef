"""What a worker last said about its machine: its GPUs and its disks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("state", postgresql.JSONB(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "state")
