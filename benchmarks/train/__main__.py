"""Ours beside a plain configuration of our own and beside the reference's published reading, d20 at 524,288 tokens a step.

Each configuration runs twice, in the order A B C C B A, on every GPU there is; then all GPUs train together. The reference
was measured on H100s with the same shapes (nanochat 4a87a0d, torch 2.11: 149,558 tok/s, 72.1 GiB; four GPUs 95.4 %).
`JOBS`: names, comma-separated; "scaling" is all GPUs together.
`SECONDS`: measured per run (20). `QUICK=1`: a small model, on a CPU if need be. `PROFILE=1`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from statistics import mean
from typing import Any

import torch

from benchmarks.cards import spread
from benchmarks.result import ROOT, Row, finish, row, slug

REFERENCE = "nanochat, 1 x H100"
REFERENCE_TOK_PER_S, REFERENCE_GIB = 149_558, 72.1
QUICK = os.environ.get("QUICK") == "1"
SHAPE: dict[str, Any] = (
    {"depth": 4, "vocab": 2048, "seq_len": 256, "batch": 4, "total_batch": 2048, "seconds": 3, "warm_s": 1} if QUICK else {}
)
JOBS: dict[str, dict[str, Any]] = {
    "plain": {"plain": True},
    "bf16": {},
    "fp8": {"fp8": True},
    "modern": {"recipe": "modern", "vocab": 32_768},  # on request
}


def main() -> None:
    cuda = torch.cuda.is_available()
    names = os.environ.get("JOBS", "plain,bf16,fp8,scaling" if cuda else "plain,bf16").split(",")
    scaling = "scaling" in names
    names = [name for name in names if name != "scaling"]
    if unknown := set(names) - set(JOBS):
        raise SystemExit(f"JOBS has {', '.join(sorted(unknown))}; there are: {', '.join(JOBS)}, scaling")
    cards = torch.cuda.device_count() if cuda else 1
    found = [one for one in spread([*names, *reversed(names)] if not QUICK else names, cards, measured) if one]
    print(f"\n{'':<8} {'tok/s':>10} {'MFU %':>7} {'step ms':>9} {'optim ms':>9} {'GiB':>6} {'start s':>8} {'MHz':>6} {'W':>5}")
    for one in found:
        show(one)
    runs = defaultdict(list)
    for one in found:
        runs[one["name"]].append(one)
    rows, device = speed_rows(runs), slug(found[0]["device"])
    finish("train", device, rows)
    if cards > 1 and scaling and "bf16" in runs:  # the last, and the one that may hang: what is measured is kept already
        finish("train", device, rows + scaling_rows(cards, mean(r["tok_per_s"] for r in runs["bf16"])))


def measured(name: str, env: dict[str, str], ranks: int = 1) -> dict[str, Any]:
    """What the job printed; {} with its last words on the terminal when it failed."""
    job = {"name": name, **SHAPE, **JOBS[name.split(" ")[0]], "profile": os.environ.get("PROFILE") == "1" and ranks == 1}
    if "SECONDS" in os.environ:
        job["seconds"] = float(os.environ["SECONDS"])
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", "benchmarks.train.job", json.dumps(job)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name} failed:\n{done.stderr[-3000:]}", flush=True)
        return {}
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "profile" in result:
        print(f"\n{name}, ms a micro-step: {result['profile']['ms']}")
        for kernel in result["profile"]["top"]:
            print(f"  {kernel['ms']:8.2f} ms {kernel['launches']:5d} x {kernel['kernel']}")
        for one in result["profile"]["products"]:
            print(f"  {one['ms']:8.2f} ms {one['launches']:5d} x {one['product']}, {one['tflops']} TFLOP/s")
    return result


def show(one: dict[str, Any]) -> None:
    cells = [one["tok_per_s"], one["mfu"], one["step_ms"], one["optimizer_ms"], one["peak_gib"], one["compile_s"]]
    text = [f"{cell:,.1f}" if cell is not None else "–" for cell in (*cells, one.get("sm_mhz"), one.get("watts"))]
    widths = (10, 7, 9, 9, 6, 8, 6, 5)
    print(f"{one['name']:<8} " + " ".join(f"{cell:>{width}}" for cell, width in zip(text, widths, strict=True)))


def speed_rows(runs: dict[str, list[dict[str, Any]]]) -> list[Row]:
    rows: list[Row] = []
    speed = {name: mean(r["tok_per_s"] for r in found) for name, found in runs.items()}
    for name, found in runs.items():
        card = {key: round(mean(r[key] for r in found), 1) for key in ("sm_mhz", "watts", "mfu") if found[0].get(key)}
        peer, must = {"bf16": ("plain", 1.10), "fp8": ("bf16", 1.12)}.get(name, (None, None))
        bound = {"must": must} if peer in speed else {}
        rows.append(
            row(f"{name}", speed[name], "tok/s", "higher", peer, speed.get(peer or ""), **bound, runs=len(found), **card)
        )
        if found[0]["peak_gib"]:
            memory = mean(r["peak_gib"] for r in found)
            rows.append(row(f"{name} peak memory", memory, "GiB", "lower", must=60 if name == "bf16" else None))
            rows.append(row(f"{name} compile + first 2 steps", max(r["compile_s"] for r in found), "s", "lower", must=90))
    if not QUICK and "bf16" in speed:
        rows.append(row("bf16", speed["bf16"], "tok/s", "higher", REFERENCE, REFERENCE_TOK_PER_S, must=1.09, aim=1.17))
    if not QUICK and "fp8" in speed:
        rows.append(row("fp8", speed["fp8"], "tok/s", "higher", REFERENCE, REFERENCE_TOK_PER_S, must=1.2035, aim=1.37))
    return rows


def scaling_rows(cards: int, one: float) -> list[Row]:
    found = measured(f"bf16 on {cards}", {}, ranks=cards)
    if not found:
        return []
    show(found)
    speed = found["tok_per_s"]
    return [
        row(f"bf16 on {cards} GPUs", speed, "tok/s", "higher", f"{cards} x one", cards * one, must=0.97, aim=0.99),
        row(f"bf16 on {cards} GPUs, peak memory of one", found["peak_gib"], "GiB", "lower"),
    ]


if __name__ == "__main__":
    main()
