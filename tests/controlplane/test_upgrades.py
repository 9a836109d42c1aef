"""Upgrades of a database with data in it, from every earlier revision. They only expand the schema.

While an upgrade rolls out, processes of the release before it still write. So every row must keep its values, and an INSERT that
names only the old columns must still succeed. A column that is no longer used is dropped one release later.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from controlplane import db
from controlplane.models import Base, Word

SCRIPTS = ScriptDirectory.from_config(db.alembic_config())
EARLIER = [script.revision for script in SCRIPTS.walk_revisions() if script.revision not in SCRIPTS.get_heads()]
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# The value of a column in row n. Equal numbers in all tables make every foreign key point at row n.
VALUES: dict[type[sa.types.TypeEngine[Any]], Callable[[int], Any]] = {
    sa.BigInteger: lambda n: n,
    sa.Integer: lambda n: n,
    sa.Text: lambda n: f"row-{n}",
    sa.Boolean: lambda n: False,
    sa.DateTime: lambda n: MOMENT,
    sa.Float: lambda n: n + 0.5,
    JSONB: lambda n: {"n": n},
    sa.ARRAY: lambda n: [n],
}

Rows = dict[str, dict[str, Any]]


def test_there_is_one_newest_revision() -> None:
    assert len(SCRIPTS.get_heads()) == 1, "set down_revision of one of these to the other one"


@pytest.mark.parametrize("revision", EARLIER)
def test_a_database_with_data_is_upgraded(revision: str, empty_database_url: str) -> None:
    engine = db.make_engine(empty_database_url)
    with engine.begin() as connection:
        command.upgrade(db.alembic_config(connection), revision)
        old = sa.MetaData()
        old.reflect(connection)
        before = insert_rows(connection, old, 1)
    db.migrate(empty_database_url)
    with engine.begin() as connection:
        assert rows(connection, old, 1) == before
        command.check(db.alembic_config(connection))
        inserted = insert_rows(connection, old, 2)  # as a process of the earlier release does
        assert rows(connection, old, 2) == inserted
    with Session(engine) as session:
        for mapper in Base.registry.mappers:
            if mapper.local_table.name in old.tables:
                assert len(session.scalars(sa.select(mapper.class_)).all()) == 2, mapper.local_table.name
    engine.dispose()


def test_a_migration_does_not_queue_behind_a_long_transaction(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ALTER TABLE that waits for its lock would hold up every later reader of the table."""
    monkeypatch.setattr(db, "MIGRATION_LOCK_TIMEOUT_MS", 200)
    engine = db.make_engine(empty_database_url)
    with engine.begin() as connection:
        command.upgrade(db.alembic_config(connection), "0001")
    with engine.connect() as reader:
        reader.execute(sa.text("LOCK TABLE checkpoint IN ACCESS SHARE MODE"))
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            db.migrate(empty_database_url)
    db.migrate(empty_database_url)
    with engine.connect() as connection:
        assert db.is_current(connection)
    engine.dispose()


def insert_rows(connection: sa.Connection, tables: sa.MetaData, n: int) -> Rows:
    """Insert row `n` into every table, with a value in every column."""
    for table in ours(tables):
        connection.execute(table.insert(), {column.name: value(column, n) for column in table.columns})
    return rows(connection, tables, n)


def rows(connection: sa.Connection, tables: sa.MetaData, n: int) -> Rows:
    """Row `n` of every table, with the columns that the table had at the old revision."""
    found: Rows = {}
    for table in ours(tables):
        is_row = [column == value(column, n) for column in table.primary_key.columns]
        found[table.name] = dict(connection.execute(sa.select(table).where(*is_row)).mappings().one())
    return found


def ours(tables: sa.MetaData) -> list[sa.Table]:
    return [table for table in tables.sorted_tables if table.name != "alembic_version"]


def value(column: sa.Column[Any], n: int) -> Any:
    """The value of a column in row `n`. A column that holds an enum gets its first member."""
    table = Base.metadata.tables.get(column.table.name)
    if table is not None and column.name in table.columns and isinstance(table.columns[column.name].type, Word):
        return next(iter(table.columns[column.name].type.enum)).value
    for kind, make in VALUES.items():
        if isinstance(column.type, kind):
            return make(n)
    raise AssertionError(f"{column} is {column.type!r}: say in VALUES which value to test with")
