"""What a user asks a worker to do with its running stages while it takes no new ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("worker", sa.Column("drain", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("worker", "drain")
