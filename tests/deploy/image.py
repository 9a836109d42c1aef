"""An image without Docker: what its Dockerfile copies and installs, as symbolic links in a bare virtual environment.

Only the files that the image copies and the packages of its own extras are within reach of a process of it, and of the
processes which that one starts. Reading the Dockerfile is part of the test: nothing here repeats what it says.
"""

from __future__ import annotations

import functools
import json
import re
import shlex
import socket
import subprocess
import sysconfig
import tomllib
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rustbpe
from tests.waiting import until

ROOT = Path(__file__).parents[2]
SERVICES = ("api", "worker", "inference", "ui")
PROJECT = "nanochat-platform"


class Dockerfile:
    def __init__(self, service: str):
        text = (ROOT / "services" / service / "Dockerfile").read_text()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        self.lines = [line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]
        self.text = " ".join(self.lines)

    @property
    def last_stage(self) -> list[str]:
        return self.lines[max(i for i, line in enumerate(self.lines) if line.startswith("FROM ")) :]

    @property
    def extras(self) -> list[str]:
        return re.findall(r"--extra (\S+)", self.text)

    @property
    def environment(self) -> dict[str, str]:
        words = [word for line in self.last_stage if line.startswith("ENV ") for word in shlex.split(line)[1:]]
        return dict(word.split("=", 1) for word in words)

    @property
    def entrypoint(self) -> list[str]:
        (line,) = (line for line in self.last_stage if line.startswith("ENTRYPOINT "))
        return list(json.loads(line.removeprefix("ENTRYPOINT ")))

    @property
    def health_check(self) -> list[str]:
        (line,) = (line for line in self.last_stage if line.startswith("HEALTHCHECK "))
        command = line.split(" CMD ", 1)[1].strip()
        return list(json.loads(command)) if command.startswith("[") else ["sh", "-c", command]


def copied(lines: list[str]) -> list[tuple[str, str]]:
    """(source, destination) of every COPY from the build context."""
    words = [shlex.split(line)[1:] for line in lines if line.startswith("COPY ") and "--from=" not in line]
    return [(source, line[-1]) for line in words for source in line[:-1]]


class Image:
    """The image of `service`, built below `root`. Its home, port and what it may write are the test's."""

    def __init__(self, service: str, root: Path):
        self.service, self.root, self.file = service, root, Dockerfile(service)
        self.home = root / "home"
        self.home.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        for source, destination in copied(self.file.last_stage):
            target = root / destination.lstrip("/") / ("" if (ROOT / source).is_dir() else Path(source).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(ROOT / source)
        venv.EnvBuilder(symlinks=True).create(root / "opt" / "venv")
        self.python = root / "opt" / "venv" / "bin" / "python"
        (packages,) = (root / "opt" / "venv" / "lib").glob("python3*/site-packages")
        if "/opt/maturin" in self.file.text:  # built from this checkout, and here perhaps installed in place
            (packages / "rustbpe").symlink_to(Path(rustbpe.__file__).parent)
        link(resolved(self.file.extras), packages)

    @property
    def environment(self) -> dict[str, str]:
        """The image's own, with its folders and its port moved to where the test has them."""
        here = {"HOME": str(self.root), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
        for name, value in self.file.environment.items():
            here[name] = self._moved(value).replace("$PATH", "/usr/bin:/bin")
        return {**here, "NANOCHAT_HOST": "127.0.0.1", "NANOCHAT_PORT": str(self.port)}

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The image's Python with these arguments, to its end."""
        return subprocess.run(
            [str(self.python), *arguments],
            cwd=self.root / "app",
            env={**self.environment, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def entrypoint(self, *arguments: str) -> list[str]:
        _, *command = self.file.entrypoint
        return [*command, *arguments]

    @contextmanager
    def started(self, *arguments: str, **env: str) -> Iterator[None]:
        """The service, from its entry point to its first good health check, and until the block ends."""
        log = self.root / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(self.python), *self.entrypoint(*arguments)],
                cwd=self.root / "app",
                env={**self.environment, **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: process.poll() is not None or self.is_healthy(), f"{self.service} to be healthy", 240, every=0.2)
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def is_healthy(self) -> bool:
        """What the image's own HEALTHCHECK says."""
        command = [self._moved(word) for word in self.file.health_check]
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def log(self) -> str:
        return (self.root / "log").read_text()

    def _moved(self, text: str) -> str:
        text = text.replace("/var/lib/nanochat", str(self.home)).replace("/opt/venv", str(self.root / "opt" / "venv"))
        text = re.sub(r"(?<![\w/])/app\b", str(self.root / "app"), text)
        return re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{self.port}", text)


def resolved(extras: Sequence[str]) -> set[str]:
    """Names of every package that these extras of the project bring along, as this environment resolved them."""
    found: set[str] = set()
    waiting = [Requirement(f"{PROJECT}[{','.join(extras)}]")]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        if wanted.name == PROJECT:  # as it is written now, not as it was when it was installed
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            extra_lines = [line for extra in wanted.extras for line in project["optional-dependencies"][extra]]
            waiting += map(Requirement, [*project["dependencies"], *extra_lines])
            continue
        found.add(key[0])
        for line in metadata.requires(wanted.name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ["", *wanted.extras]):
                waiting.append(needed)
    return found


def link(packages: set[str], site: Path) -> None:
    """Links to the files of `packages` in this environment. A folder that other packages share is linked file by file."""
    owned = {name: set(entries) for name, entries in entries_by_package().items()}
    owners = Counter(entry for entries in owned.values() for entry in entries)
    source = Path(sysconfig.get_path("purelib"))
    for name in packages:
        for entry in owned[name]:
            if owners[entry] == 1 or (source / entry).is_file():
                if not (site / entry).is_symlink():
                    (site / entry).symlink_to(source / entry)
                continue
            for file in metadata.distribution(name).files or []:
                if file.parts[0] == entry and not (site / file).is_symlink():
                    (site / file).parent.mkdir(parents=True, exist_ok=True)
                    (site / file).symlink_to(source / file)


@functools.cache
def entries_by_package() -> dict[str, frozenset[str]]:
    """package -> its files and folders at the top of this environment's site-packages."""
    found: dict[str, frozenset[str]] = {}
    for distribution in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        found[canonicalize_name(distribution.metadata["Name"])] = frozenset(tops)
    return found
