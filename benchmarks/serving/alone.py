"""`python -m benchmarks.serving.alone <json>`: the engine without a server on the same checkpoint; prints one line of JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.engine.measure import drain, synchronize
from benchmarks.process import job_of_argv
from nanochat.distributed import native_dtype
from nanochat.engine import Engine, Sampling
from nanochat.engine.runner import narrow
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import load_model


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Tokens a second, with the prompts read, of the fastest of several bursts of `concurrency` requests."""
    folder, rng = Path(job["folder"]), Random(2)
    model, _ = load_model(folder / "model", job["device"])
    narrow(model, native_dtype(model.get_device())).eval()
    engine = Engine(model, Tokenizer.load(folder / "tokenizer"), max_rows=job["max_rows"])
    speeds = []
    for _ in range(job["times"] + 1):  # the first one compiles and captures
        for number in range(job["concurrency"]):
            prompt = [rng.randrange(*job["ids"]) for _ in range(job["prompt"])]
            engine.add(prompt, Sampling(top_k=50, seed=number), max_tokens=job["new"])
        synchronize()
        start = time.perf_counter()
        drain(engine)
        synchronize()
        speeds.append(job["concurrency"] * job["new"] / (time.perf_counter() - start))
    return {"tok_per_s": max(speeds[1:])}


if __name__ == "__main__":
    print(json.dumps(measure(job_of_argv())))
