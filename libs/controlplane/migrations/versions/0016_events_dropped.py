"""How many events of a run are no longer kept, and the greatest id of those."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

COLUMNS = ("events_dropped", "events_dropped_id")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("run", sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("run", name)
