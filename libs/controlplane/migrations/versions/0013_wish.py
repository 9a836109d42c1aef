"""What a user asked of a sweep and has yet to reach a run of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("wish", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("run", "wish")
