"""From which attempt's checkpoint an attempt resumed: the curve of a stage follows this line."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempt", sa.Column("resumed_from_attempt", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempt", "resumed_from_attempt")
