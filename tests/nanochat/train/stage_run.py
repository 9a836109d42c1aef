"""Small but real inputs for training stages, and attempts at stages that tests can start, watch, stop and kill.

The inputs are shards of documentation text, a tokenizer trained on that text, and its word list for the tasks.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data import topics
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import rustbpe
from nanochat import __main__ as stage_main
from nanochat.contract import events
from nanochat.contract.contract import EVENTS, SPEC, STOP, Artifact, StageSpec, seal, write_json
from nanochat.contract.launch import torchrun
from nanochat.data.shards import Shard, write_index
from nanochat.tokenizer import Tokenizer

VOCAB = 512
MODEL = {"depth": 2, "seq_len": 64, "aspect_ratio": 32, "head_dim": 32}
BASE = {
    "device_batch_size": 2,
    "total_batch_size": 256,
    "num_iterations": 24,
    "eval_every": 10,
    "eval_tokens": 512,
    "core_every": -1,
    "sample_every": 12,
    "save_every": 5,
}


def build(root: Path) -> dict[str, Artifact]:
    """Write the artifacts that training reads, in the form in which the data and tok_train stages publish them."""
    texts = [t for t in topics.topics.values() if len(t) > 200]
    shards = []
    for name, docs in (("train_0", texts[:40]), ("train_1", texts[40:70]), ("val", texts[70:])):
        path = root / "text" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"text": docs}), path, row_group_size=8)
        shards.append(Shard(str(path), path.stat().st_size))
    write_index(root / "shards", shards[:2], shards[2:])
    Tokenizer.from_merges(rustbpe.train(texts, VOCAB - 9)).save(root / "tokenizer")
    words = root / "words.txt"
    words.write_text("\n".join(sorted(set(re.findall(r"\b[a-z]{3,10}\b", " ".join(texts))))), encoding="utf-8")
    for name, content in (
        ("tasks/tasks.json", {"root": None, "files": {}, "words": str(words)}),
        ("core/core.json", {"root": None}),
    ):
        (root / name).parent.mkdir(exist_ok=True)
        write_json(root / name, content)
    return {name: seal(root / name, name=name) for name in ("shards", "tokenizer", "tasks", "core")}


@dataclass
class StageRun:
    """One attempt at a stage, in the folder `out`."""

    out: Path
    kind: str
    inputs: dict[str, Artifact]
    config: dict[str, Any]
    resume_from: Artifact | None = None
    seed: int = 42
    device: str = "cpu"
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def spec(self) -> StageSpec:
        return StageSpec(
            run="r_test",
            stage=self.kind,
            kind=self.kind,
            config=self.config,
            seed=self.seed,
            inputs=self.inputs,
            output_dir=str(self.out),
            cache_dir=str(self.out / "cache"),
            resume_from=self.resume_from,
            device=self.device,
        )

    def in_process(self) -> int:
        """Run in this process. Returns the exit code."""
        return int(stage_main.run(self.spec))

    def start(self, ranks: int = 1, program: Sequence[str] = ("-m", "nanochat"), **env: str) -> StageRun:
        """Start in separate processes, as a worker would."""
        self.out.mkdir(parents=True)
        (self.out / SPEC).write_text(self.spec.model_dump_json(), encoding="utf-8")
        stage = [*program, self.kind, "--spec", str(self.out / SPEC)]
        command = torchrun(ranks, *stage) if ranks > 1 else [sys.executable, *stage]
        with (self.out / "stdout.log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, env=os.environ | env)
        return self

    def wait(self, timeout: float = 180) -> int:
        assert self.process
        return self.process.wait(timeout)

    def kill(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def rank(self, number: int) -> psutil.Process:
        """The process of one rank below torchrun."""
        assert self.process
        children = psutil.Process(self.process.pid).children(recursive=True)
        return next(p for p in children if p.environ().get("RANK") == str(number))

    def until(self, seen: Callable[[list[dict[str, Any]]], bool], timeout: float = 120) -> None:
        """Wait until the events so far satisfy `seen`."""
        deadline = time.monotonic() + timeout
        while not seen(self.events()):
            assert self.process is None or self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, "timed out\n" + self.log()
            time.sleep(0.02)

    def stop_after(self, step: int) -> threading.Thread:
        """In a thread: create the stop file once `step` steps are done. Works for stages in this process and in others."""

        def watch() -> None:
            self.until(lambda seen: any(e["kind"] == "metric" and e["step"] >= step and "loss" in e["values"] for e in seen))
            (self.out / STOP).touch()

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    # -- results --

    def log(self) -> str:
        path = self.out / "stdout.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        return [e for e in events.read(self.out / EVENTS) if kind in (None, e["kind"])]

    def series(self, key: str) -> dict[int, float]:
        """The values of a metric: {step: value}."""
        return {e["step"]: e["values"][key] for e in self.events("metric") if key in e["values"]}

    def checkpoint(self, step: int) -> Artifact:
        found = [e for e in self.events("checkpoint") if e["step"] == step]
        return Artifact(path=found[-1]["path"], sha256=found[-1]["sha256"])

    def artifact(self, name: str) -> Artifact:
        found = next(e for e in self.events("artifact") if e["name"] == name)
        return Artifact(path=found["path"], sha256=found["sha256"])

    def results(self) -> dict[str, Any]:
        return json.loads((self.artifact("results").dir / "results.json").read_text())

    def error(self) -> dict[str, Any]:
        return self.events("error")[-1]
