"""Engine, sessions and migrations."""

from __future__ import annotations

from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import ColumnElement, Connection, Engine, Text, bindparam, create_engine, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session, sessionmaker

SessionFactory = sessionmaker[Session]

MIGRATION_LOCK = 0x6E616E6F01  # "nano" in ASCII, then the number of the lock
CONTROL_LOCK = 0x6E616E6F02
MIGRATION_LOCK_TIMEOUT_MS = 5000  # an ALTER TABLE that waits longer would hold up every later reader of its table


def make_engine(url: str, *, pool_size: int = 5) -> Engine:
    """Make an engine with a statement timeout of 30 s, which replaces dead connections before use.

    `url` has SQLAlchemy's form: `postgresql+psycopg://user:password@host:port/database`.
    """
    return create_engine(
        url,
        pool_size=pool_size,
        max_overflow=10,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": 5,
            "application_name": "nanochat",
            "options": "-c timezone=UTC -c statement_timeout=30000 -c idle_in_transaction_session_timeout=60000",
            "keepalives_idle": 30,
            "tcp_user_timeout": 30_000,  # ms
        },
    )


def sessions(engine: Engine) -> SessionFactory:
    """Make the session factory that the control plane passes around. `with factory.begin() as session` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)


def among(column: Any, parameter: str) -> ColumnElement[bool]:
    """Whether a text column is one of the list bound as `parameter`: one prepared statement for lists of any length."""
    found: ColumnElement[bool] = column == func.any(bindparam(parameter, type_=ARRAY(Text)))
    return found


def migrate(url: str) -> None:
    """Migrate the schema to the newest revision. Several processes may call it at once; an advisory lock orders them.

    Raises OperationalError if a table stays locked; nothing has changed then, and a later call may succeed.
    """
    engine = make_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            connection.execute(text(f"SET LOCAL lock_timeout = {MIGRATION_LOCK_TIMEOUT_MS}"))
            command.upgrade(alembic_config(connection), "head")
    finally:
        engine.dispose()


def is_current(connection: Connection) -> bool:
    """Whether the schema is at the newest revision. For readiness probes."""
    heads = ScriptDirectory.from_config(alembic_config()).get_heads()
    return set(MigrationContext.configure(connection).get_current_heads()) == set(heads)


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration. It needs no `alembic.ini`, so that it works from an installed wheel."""
    config = Config()
    config.set_main_option("script_location", "controlplane:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
