import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.tasks.sandbox import Sandbox

MODES = ("user namespaces", "Landlock")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where programs have their folders when they have no file system of their own."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="session", params=MODES)
def box(request: pytest.FixtureRequest, folder: Path) -> Iterator[Sandbox]:
    """A sandbox with user namespaces, and one without, as in a container that allows none."""
    made = Sandbox(namespaces=request.param == "user namespaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        offered = made.walls
    if request.param not in offered or not made.is_isolated:
        made.close()
        pytest.skip(f"this kernel offers no {request.param}, or no seccomp: {offered}")
    yield made
    made.close()


@pytest.fixture
def nothing_left(folder: Path) -> Iterator[None]:
    """No file and no shared memory is left behind."""
    yield
    assert os.listdir(folder) == []
    assert not os.path.exists("/dev/shm/escaped")
    shared = subprocess.run(["ipcs"], capture_output=True, text=True, check=False).stdout
    assert f"{4711:#010x}" not in shared
