"""Wall clocks that can be set while the processes run: a library that is loaded before libc, and a file with the offset."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clocks:
    """A clock for each name. It moves the processes that are started with its environment. `work` is False without a C compiler."""

    def __init__(self, names: tuple[str, ...]):
        self._folder = Path(tempfile.mkdtemp(prefix="faults-clocks-"))
        self._folder.chmod(0o755)  # Postgres may run as another user
        self._library = self._folder / "clock.so"
        self.work = (compiler := shutil.which("cc")) is not None
        if compiler is not None:
            subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(SOURCE)], check=True)
            self._library.chmod(0o755)
        self._pages = {name: self._page(name) for name in names}

    def env(self, name: str) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CAMPAIGN_CLOCK": str(self._folder / name)} if self.work else {}

    def set(self, name: str, seconds: int) -> None:
        """Seconds ahead of the real time, or behind it."""
        self._pages[name][:] = struct.pack("q", seconds)

    def mend(self) -> None:
        for name in self._pages:
            self.set(name, 0)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _page(self, name: str) -> mmap.mmap:
        file = self._folder / name
        file.write_bytes(bytes(8))
        file.chmod(0o644)
        with file.open("r+b") as opened:
            return mmap.mmap(opened.fileno(), 8)
