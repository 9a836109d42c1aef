"""The embedded Postgres and Valkey: as root, as an ordinary user, after a crash, with a taken port or a folder in use."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from services.standalone import launch
from services.standalone.child import StartError
from services.standalone.postgres import Postgres, binaries_for
from services.standalone.valkey import Valkey
from tests.waiting import until

from .processes import environment, gone, start_script

USE_BOTH = """
import json, os, sys
from pathlib import Path
import psycopg, redis
from services.standalone.identity import identity_for
from services.standalone.postgres import Postgres, binaries_for
from services.standalone.valkey import Valkey
folder = Path(sys.argv[1])
with Postgres(folder / "pg") as db, Valkey(folder / "broker") as broker:
    psycopg.connect(db.dsn, autocommit=True).execute("create table t (x int)")
    redis.Redis.from_url(broker.url).set("x", 1)
with Postgres(folder / "pg") as db, Valkey(folder / "broker") as broker:
    rows = psycopg.connect(db.dsn).execute("select count(*) from t").fetchone()[0]
    kept = redis.Redis.from_url(broker.url).get("x").decode()
how = identity_for(folder / "pg", binaries_for(folder / "pg" / "cluster"))
print(json.dumps({"uid": os.geteuid(), "rows": rows, "kept": kept, "how": how}))
"""

# Refuses unshare() even to root, as an ordinary container does: a classic BPF filter on the number of the system call.
FORBID_NAMESPACES = """
import ctypes, struct
libc = ctypes.CDLL(None)
program = b"".join(struct.pack("=HBBI", *op) for op in [(0x20, 0, 0, 0), (0x15, 0, 1, 272), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7FFF0000)])
buffer = ctypes.create_string_buffer(program)
class Prog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Prog(4, ctypes.addressof(buffer)))) == 0
"""


def run_python(identity: str, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGKILL)), identity]
    return subprocess.run(
        [*launcher, sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=Path.cwd(),
        check=False,
    )


def namespaces_allowed() -> bool:
    return run_python("namespace:1", "pass").returncode == 0


@pytest.mark.parametrize("uid", [0, 65_534], ids=["root", "ordinary user"])
def test_runs_as(uid: int, tmp_path: Path) -> None:
    if os.geteuid() != uid and not namespaces_allowed():
        pytest.skip("this machine allows no user namespaces, so the test cannot run as another user")
    done = run_python("self" if os.geteuid() == uid else f"namespace:{uid}", USE_BOTH, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"uid": uid, "rows": 0, "kept": "1", "how": "self" if uid else "namespace:65534"}
    owners = {path.stat().st_uid for path in [tmp_path, *tmp_path.rglob("*")]}
    assert owners == {os.geteuid()}


@pytest.mark.skipif(
    os.geteuid() != 0 or platform.machine() != "x86_64",
    reason="needs root and x86-64, whose number of unshare the filter holds",
)
def test_root_where_namespaces_are_forbidden_drops_to_another_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    done = run_python("self", FORBID_NAMESPACES + USE_BOTH, str(tmp_path))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer == {"uid": 0, "rows": 0, "kept": "1", "how": "reach:65534"}
    assert (tmp_path / "pg" / "cluster").stat().st_uid == 65_534
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700  # not changed: it is not ours
    assert tmp_path.stat().st_uid == 0


def test_passwords_are_private_and_required(tmp_path: Path) -> None:
    with Postgres(tmp_path / "pg") as db, Valkey(tmp_path / "broker") as broker:
        for secret in (tmp_path / "pg" / "password", tmp_path / "broker" / "valkey.conf"):
            assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        password = (tmp_path / "pg" / "password").read_text().strip()
        for wrong in (db.dsn.replace(password, "wrong"), db.dsn.replace("//nanochat:", "//postgres:")):
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(wrong)
        with pytest.raises(redis.exceptions.AuthenticationError):
            redis.Redis(port=int(broker.url.rsplit(":", 1)[1].removesuffix("/0"))).ping()
        listening = {
            c.laddr.ip for p in (db.process, broker.process) if p for c in psutil.Process(p.pid).net_connections("inet")
        }
        assert listening == {"127.0.0.1"}


@pytest.mark.parametrize("server", [Postgres, Valkey])
def test_a_taken_port_is_named(server: type[Postgres] | type[Valkey], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"port {port} .* is taken"):
            server(tmp_path / "data", port=port).start()
    with server(tmp_path / "data", port=port) as started:
        assert f":{port}/" in started.url


@pytest.mark.parametrize("server", [Postgres, Valkey])
def test_a_folder_in_use_is_refused_with_the_pid(server: type[Postgres] | type[Valkey], tmp_path: Path) -> None:
    with server(tmp_path) as first:
        assert first.process is not None
        with pytest.raises(StartError, match=f"in use by the process {first.process.pid};"):
            server(tmp_path).start()


def test_recovers_from_kill_9(tmp_path: Path) -> None:
    db = Postgres(tmp_path)
    db.start()
    with psycopg.connect(db.dsn, autocommit=True) as session:
        session.execute("create table t (x int)")
        session.execute("insert into t values (7)")
    assert db.process is not None
    db.process.kill()
    db.process.wait()
    stale = tmp_path / "cluster" / "postmaster.pid"
    # The worst case: after a reboot the pid in the file belongs to an unrelated process.
    stale.write_text(stale.read_text().replace(str(db.process.pid), str(os.getppid()), 1))
    with Postgres(tmp_path) as again:
        assert psycopg.connect(again.dsn).execute("select x from t").fetchone() == (7,)


def test_a_start_that_broke_off_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "cluster.tmp").mkdir()
    (tmp_path / "cluster.tmp" / "half").touch()
    with Postgres(tmp_path) as db:
        assert psycopg.connect(db.dsn).execute("select 1").fetchone() == (1,)


def test_a_cluster_of_another_major_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "PG_VERSION").write_text("9\n")
    with pytest.raises(StartError, match="made by PostgreSQL 9, and only"):
        Postgres(tmp_path).start()
    older = tmp_path / "old"
    older.mkdir()
    (older / "PG_VERSION").write_text("16\n")
    assert binaries_for(older).parent.name == "pginstall"


def test_servers_end_when_their_starter_is_killed(tmp_path: Path) -> None:
    script = """
        import sys, time
        from pathlib import Path
        from services.standalone.postgres import Postgres
        from services.standalone.valkey import Valkey
        with Postgres(Path(sys.argv[1]) / "pg") as db, Valkey(Path(sys.argv[1]) / "broker") as broker:
            print(db.process.pid, broker.process.pid, flush=True)
            time.sleep(600)
    """
    starter = start_script(script, str(tmp_path))
    assert starter.stdout is not None
    pids = [int(pid) for pid in starter.stdout.readline().split()]
    assert len(pids) == 2
    starter.kill()
    starter.wait()
    until(lambda: gone(*pids), "the servers to end")
    with Postgres(tmp_path / "pg"), Valkey(tmp_path / "broker"):
        pass
