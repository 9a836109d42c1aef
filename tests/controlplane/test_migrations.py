"""Migrations: from an empty database to the newest revision, which equals the models, and back."""

from __future__ import annotations

import subprocess
import sys
import threading
import zipfile
from pathlib import Path

from alembic import command
from sqlalchemy import inspect

from controlplane import db
from controlplane.models import Base


def test_upgrade_check_and_downgrade(empty_database_url: str) -> None:
    engine = db.make_engine(empty_database_url)
    with engine.connect() as connection:
        assert not db.is_current(connection)
    db.migrate(empty_database_url)
    db.migrate(empty_database_url)  # a second migration changes nothing
    with engine.begin() as connection:
        assert db.is_current(connection)
        command.check(db.alembic_config(connection))  # raises if models and migrations differ
        tables = set(inspect(connection).get_table_names())
    assert tables == {*Base.metadata.tables, "alembic_version"}
    with engine.begin() as connection:
        command.downgrade(db.alembic_config(connection), "base")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_several_processes_can_migrate_at_once(empty_database_url: str) -> None:
    errors: list[BaseException] = []

    def migrate() -> None:
        try:
            db.migrate(empty_database_url)
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=migrate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_wheel_contains_the_migrations(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    code = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    built = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        names = set(wheel.namelist())
    here = root / "libs" / "controlplane" / "migrations"
    wanted = [here / "env.py", here / "script.py.mako", *(here / "versions").glob("*.py")]
    assert {str(path.relative_to(root / "libs")) for path in wanted} <= names
