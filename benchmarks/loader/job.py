"""`python -m benchmarks.loader.job <json>`: one packing in a process of its own; prints one line of JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.process import cpu_seconds, job_of_argv, peak_rss_mb
from nanochat.data.bos_aligned import cropped_pct
from nanochat.stages.base_train import LOADERS
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import AHEAD, Feed

WARM_BATCHES = 4


def main() -> None:
    print(json.dumps(measure(job_of_argv())))


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Everything that the feed does for one rank: reading, encoding, packing and its state; on a GPU also pinning and copying."""
    tokenizer = Tokenizer.load(Path(job["tokenizer"]))
    files = [Path(path) for path in job["files"]]
    shape = {"batch_size": job["batch_size"], "seq_len": job["seq_len"]}
    loader = LOADERS[job["packing"]](files, tokenizer, shuffle=True, **shape)
    feed = Feed(loader, torch.device("cuda:0" if torch.cuda.is_available() else "cpu"), lambda: 0.0)
    before = peak_rss_mb()
    for _ in range(WARM_BATCHES):
        feed.take()
    batches = -(-job["tokens"] // (job["batch_size"] * job["seq_len"]))
    started, cpu, longest = time.perf_counter(), cpu_seconds(), 0.0
    for _ in range(batches):
        drawn = time.perf_counter()
        feed.take()
        longest = max(longest, time.perf_counter() - drawn)
    cpu, wall = cpu_seconds() - cpu, time.perf_counter() - started
    feed.close()
    tokens, peak = batches * job["batch_size"] * job["seq_len"], peak_rss_mb()

    state, resumed = feed.state, time.perf_counter()
    LOADERS[job["packing"]](files, tokenizer, shuffle=True, state=state, **shape)
    return {
        "cpu_tok_per_s": tokens / cpu,
        "wall_tok_per_s": tokens / wall,
        "longest_s": longest,
        "batches_ahead": AHEAD,
        "rss_mb": peak,
        "loader_mb": peak - before,
        "state_kb": len(json.dumps(state)) / 1000,
        "resume_s": time.perf_counter() - resumed,
        **cropped_pct(state),
    }


if __name__ == "__main__":
    main()
