"""Checks of this machine: Python, packages, disk, permissions, memory that processes share, limits."""

from __future__ import annotations

import os
import re
import resource
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from services.standalone.doctor.finding import Finding, bad, fine, odd

GIB = 2**30
PACKAGE = "nanochat-platform"
OLDEST_PYTHON = (3, 11)
DISK_GIB = (5, 100)  # for the tiny recipe; for the speedrun, whose shards and checkpoints take about 60 GiB
SHARED_GIB = 1  # for each GPU; the 64 MiB of a container by default are too little for NCCL and for data loaders
OPEN_FILES = 4096


def python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Iterator[Finding]:
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        yield bad("python", f"Python {text} is too old", "install Python 3.11 or newer and make the environment anew: make env")
    else:
        yield fine("python", f"Python {text} at {sys.executable}")


def packages() -> Iterator[Finding]:
    """The parts of the platform whose packages are all installed, and what the others lack."""
    lacks: dict[str, list[str]] = {}
    for line in metadata.requires(PACKAGE) or []:
        wanted = re.match(r"(?P<name>[\w.-]+)(?P<extras>\[.*?\])?.*extra == ['\"](?P<extra>\w+)['\"]", line)
        if wanted is not None and wanted["name"] != PACKAGE and wanted["extra"] != "dev":
            lacks.setdefault(wanted["extra"], [])
            if not _installed(wanted["name"]):
                lacks[wanted["extra"]].append(wanted["name"])
    complete = [extra for extra, missing in lacks.items() if not missing]
    if complete:
        yield fine("packages", f"complete: {', '.join(complete)}")
    for extra, missing in lacks.items():
        if missing:
            report = odd if complete else bad
            yield report("packages", f"[{extra}] lacks {', '.join(missing)}", f"pip install '{PACKAGE}[{extra}]', or make env")
    if not lacks["train"] and find_spec("rustbpe") is None:
        yield bad("packages", "the tokenizer rustbpe is not built", "make env builds it; it needs Rust (https://rustup.rs)")


def disk(home: Path) -> Iterator[Finding]:
    place = _existing(home)
    held = os.statvfs(place)
    free = held.f_bavail * held.f_frsize / GIB
    if free < DISK_GIB[0]:
        yield bad(
            "disk", f"{place} has {free:.1f} GiB free", "free some space, or set NANOCHAT_HOME to a folder on a larger disk"
        )
    elif free < DISK_GIB[1]:
        yield odd(
            "disk",
            f"{place} has {free:.0f} GiB free: enough for tiny recipes, too little for the speedrun",
            f"{DISK_GIB[1]} GiB are comfortable; `nanochat gc --dry-run` shows what can be deleted",
        )
    else:
        yield fine("disk", f"{free:.0f} GiB free at {place}")
    if held.f_files and held.f_favail < 10_000:
        yield bad("disk", f"{place} has {held.f_favail} inodes left", "delete small files, or use another file system")


def permissions(home: Path) -> Iterator[Finding]:
    place = _existing(home)
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        yield fine("permissions", f"{place} can be written")
    except OSError as err:
        yield bad(
            "permissions",
            f"{place} cannot be written as user {os.getuid()}: {err.strerror}",
            f"sudo chown -R {os.getuid()} {place}, or set NANOCHAT_HOME to a folder of your own (containers run as user 10001)",
        )
    key = home / "keys" / "admin.key"
    if key.is_file() and key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield odd("permissions", f"other users may read {key}", f"chmod 600 {key}")
    yield from _programs_run_in(Path(tempfile.gettempdir()))


def shared_memory(gpus: int, place: Path = Path("/dev/shm")) -> Iterator[Finding]:
    if not place.is_dir():
        return
    held = os.statvfs(place)
    size, wanted = held.f_blocks * held.f_frsize / GIB, SHARED_GIB * max(1, gpus)
    if size < wanted:
        yield (bad if gpus > 1 else odd)(
            "shared memory",
            f"{place} holds {size:.2f} GiB; NCCL and data loaders want {wanted}",
            "docker run --shm-size=16g or --ipc=host; Compose: SHM_SIZE in .env; Kubernetes: an emptyDir with medium Memory there",
        )
    else:
        yield fine("shared memory", f"{size:.1f} GiB")


def limits() -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
        yield odd("limits", f"a process may open only {soft} files", f"ulimit -n {OPEN_FILES} before you start the platform")
    else:
        yield fine("limits", f"{soft} open files")


def _programs_run_in(place: Path) -> Iterator[Finding]:
    """torch.compile runs what it builds below the temporary folder."""
    with tempfile.TemporaryDirectory(dir=place, prefix="doctor-") as folder:
        program = Path(folder) / "program"
        program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
        program.chmod(0o700)
        try:
            subprocess.run([program], check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            yield odd(
                "permissions",
                f"no program can run in {place} (noexec)",
                "set TMPDIR to another folder: torch.compile runs programs there",
            )


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists. A folder that is still to be made lies on the same disk."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
