"""Count the lines of an attempt that could not be stored, and the log lines that are no longer kept; find lines by attempt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

COLUMNS = {"bad_line": "-1", "quarantined": "0", "log_kept_from": "0", "log_dropped_id": "0"}


def upgrade() -> None:
    for name, default in COLUMNS.items():
        op.add_column("attempt", sa.Column(name, sa.BigInteger(), server_default=sa.text(default), nullable=False))
    op.create_index("ix_log_line_attempt_id_id", "log_line", ["attempt_id", "id"], unique=False)
    op.drop_index("ix_log_line_run_id_id", table_name="log_line")


def downgrade() -> None:
    op.create_index("ix_log_line_run_id_id", "log_line", ["run_id", "id"], unique=False)
    op.drop_index("ix_log_line_attempt_id_id", table_name="log_line")
    for name in COLUMNS:
        op.drop_column("attempt", name)
