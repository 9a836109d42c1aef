"""The user that Postgres runs as. It refuses uid 0 and wants its user to have a name in the user database."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
from pathlib import Path

from services.standalone import launch
from services.standalone.child import StartError, launcher


def identity_for(data_dir: Path, binaries: Path) -> str:
    """An identity in the sense of `launch` under which Postgres runs on this machine. Raises StartError when there is none.

    The first of these that works: our own user; our own user inside a user namespace; for root where namespaces are
    forbidden, the user `nobody`. `nobody` keeps one capability when some folder above the data or the binaries is closed
    to it.
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
        f"PostgreSQL does not run as uid {os.geteuid()}, and no other way works on this machine ({'; '.join(refusals)}). "
        "Run as an ordinary user who is in the user database"
    )


def give_to(folder: Path, identity: str) -> None:
    """Hand a folder that we have just made to the user that the server will run as."""
    how, _, uid = identity.partition(":")
    if how in {"user", "reach"}:
        os.chown(folder, int(uid), int(uid))


def run_as(identity: str, argv: list[str], text: str = "") -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end with `text` as its standard input. Its standard error goes into its standard output."""
    return subprocess.run(
        [*launcher(signal.SIGKILL, identity), *argv],
        input=text.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
        cwd="/",
        check=False,
    )


def environment() -> dict[str, str]:
    """Our environment without the PG* variables, which would configure the server, and with messages in English."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PG")}, "LC_ALL": "C"}


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def _unprivileged_uid() -> int:
    """The uid of `nobody`, else of any user but root. It must have a name, which initdb looks up."""
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall() if user.pw_uid != 0}
    return users.get("nobody", next(iter(users.values()), 65_534))


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in [path, *path.parents])
