"""Fixtures for all tests: a real Postgres and a real Valkey, each started once per test process.

`database_url` is a fresh, migrated database for one test, `module_database_url` for one module. Both are clones of a template,
which takes about a tenth of a second. `redis_url` is an empty broker.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from sqlalchemy import Engine
from sqlalchemy.engine import make_url

from controlplane import db
from services.standalone.postgres import Postgres
from services.standalone.valkey import Valkey


def pytest_configure() -> None:
    """What a busy machine or the shell would make of the tests.

    One thread for each process of torch: the test processes share the cores, and threads that wait for one another take a third more
    processor time. Tests press Ctrl-C on commands, and a shell that starts the tests in the background lets them, and thereby the
    commands, ignore it.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: a compressed file in the name of a test would hold the second at which it was made,
    and the processes of one test run must agree on every name."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres")) as server:
        # Faster, and tests need no data that survives a power failure.
        _execute(server, "ALTER ROLE nanochat SET synchronous_commit = off")
        yield server


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def _template(postgres: Postgres) -> str:
    _execute(postgres, "CREATE DATABASE migrated")
    db.migrate(_url(postgres, "migrated"))
    return "migrated"


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database without tables."""
    yield from _database(postgres, "template1")


@pytest.fixture
def database_url(postgres: Postgres, _template: str) -> Iterator[str]:
    yield from _database(postgres, _template)


@pytest.fixture(scope="module")
def module_database_url(postgres: Postgres, _template: str) -> Iterator[str]:
    yield from _database(postgres, _template)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = db.make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def sessions(engine: Engine) -> db.SessionFactory:
    """`with sessions.begin() as session` is one transaction on the test's own database."""
    return db.sessions(engine)


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The URL of the broker, which is empty."""
    client = redis.Redis.from_url(valkey.url)
    client.flushall()
    client.close()
    return valkey.url


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A NANOCHAT_HOME for one test."""
    path = tmp_path / "home"
    path.mkdir()
    return path


def _database(server: Postgres, template: str) -> Iterator[str]:
    name = f"test_{secrets.token_hex(6)}"
    _execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _url(server, name)
    # FORCE cannot end a vacuum, which belongs to the superuser. The server is removed at the end of the session anyway.
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _url(server: Postgres, name: str) -> str:
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)


def _execute(server: Postgres, statement: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[call-overload]
