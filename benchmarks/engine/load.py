"""`python -m benchmarks.engine.load <json>`: from a checkpoint's folder to an engine whose graphs are captured, in a process
of its own; prints one line of JSON."""

from __future__ import annotations

import time

begun = time.perf_counter()

import json  # noqa: E402
import tempfile  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from benchmarks.engine.measure import synchronize  # noqa: E402
from benchmarks.engine.subject import Specials, Subject  # noqa: E402
from benchmarks.process import job_of_argv  # noqa: E402
from nanochat.engine import Engine  # noqa: E402
from nanochat.engine.runner import narrow  # noqa: E402
from nanochat.train.checkpoint import load_model  # noqa: E402


def main() -> None:
    print(json.dumps(measure(job_of_argv())))


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Seconds for the imports, for the weights, and until the engine is warm."""
    if torch.cuda.is_available():
        torch.zeros(1, device="cuda")
    imports = time.perf_counter() - begun
    subject = Subject(**job["subject"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = subject.build()
        save_file(model.state_dict(), folder / "model.safetensors")
        (folder / "meta.json").write_text(json.dumps({"model_config": asdict(subject.config)}), encoding="utf-8")
        size = (folder / "model.safetensors").stat().st_size
        del model
        synchronize()
        start = time.perf_counter()
        loaded, _ = load_model(folder, subject.device)
        narrow(loaded, subject.torch_dtype).eval()
        synchronize()
        weights = time.perf_counter() - start
    engine = Engine(loaded, Specials(), dtype=subject.torch_dtype, max_rows=job["max_rows"])
    engine.warm_up()
    synchronize()
    return {"imports_s": imports, "weights_s": weights, "ready_s": time.perf_counter() - start, "bytes": size}


if __name__ == "__main__":
    main()
