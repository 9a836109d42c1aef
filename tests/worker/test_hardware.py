"""How a worker splits the GPUs of its machine into slots, with a driver's tool that lists eight GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from services.worker import hardware, machine


@pytest.fixture
def eight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8; do echo 'NVIDIA H100 80GB HBM3'; done\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("slots", "count", "visible", "shares"),
    [
        (1, None, None, ["0,1,2,3,4,5,6,7"]),
        (2, None, None, ["0,1,2,3", "4,5,6,7"]),
        (2, 4, None, ["0,1", "2,3"]),
        (3, None, None, ["0,1", "2,3", "4,5"]),
        (2, None, "6,7", ["6", "7"]),
        (2, None, "GPU-a, GPU-b,GPU-c,GPU-d", ["GPU-a,GPU-b", "GPU-c,GPU-d"]),
        (1, None, "", [""]),
    ],
)
def test_slots_have_equal_shares_that_do_not_overlap(
    slots: int, count: int | None, visible: str | None, shares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [",".join(hardware.devices(slot, slots, count)) for slot in range(slots)] == shares


@pytest.mark.usefixtures("eight")
def test_a_worker_with_more_slots_than_gpus_is_refused_at_its_start() -> None:
    environment = {**os.environ, "NANOCHAT_DATABASE_URL": "postgresql+psycopg://nowhere", "NANOCHAT_GPU_SLOTS": "9"}
    command = [sys.executable, "-m", "services.worker", "--queue", "gpu"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 64
    assert "NANOCHAT_GPU_SLOTS: 9 slots cannot share 8 GPUs; use at most 8" in done.stderr


def test_the_gpus_tell_how_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\n"
        "echo '0, NVIDIA H100 80GB HBM3, 75422, 81559, 612.31, 700.00, 61, 99'\n"
        "echo '1, NVIDIA GB10, [N/A], [N/A], 12.50, [N/A], 40, 0'\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    first, second = machine.gpus()
    assert first == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "memory_used_gib": 73.65,
        "memory_total_gib": 79.65,
        "power_w": 612.31,
        "power_limit_w": 700.0,
        "temperature_c": 61.0,
        "activity_pct": 99.0,
    }
    assert (second["memory_used_gib"], second["power_w"]) == (None, 12.5)
    tool.write_text("#!/bin/sh\necho 'the driver is gone' >&2\nexit 9\n")
    assert machine.gpus() == []


def test_a_driver_that_hangs_does_not_hold_up_heartbeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "PATIENCE_S", 0.1)
    began = time.monotonic()
    assert machine.gpus() == []
    assert time.monotonic() - began < 30
