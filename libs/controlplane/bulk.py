"""Many rows at once by COPY, in the session's own transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from controlplane.models import Base


def copy(
    session: Session, table: type[Base], columns: Sequence[str], types: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Append rows, in Postgres' binary format. `types` are Postgres' names. Raises SQLAlchemy's DBAPIError, as a statement does."""
    session.flush()
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table.__tablename__), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, psycopg.Connection)
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as stream:
            stream.set_types(types)
            for row in rows:
                stream.write_row(row)
    except psycopg.Error as err:
        raise DBAPIError.instance(
            f"COPY {table.__tablename__}", None, err, psycopg.Error, connection_invalidated=connection.broken
        ) from err
