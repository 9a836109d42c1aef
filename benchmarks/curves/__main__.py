"""The speedrun's recipe and the modern one, bf16 and fp8, on the same tokens: bits per byte against training time.

Time is steps times the sustained seconds a step: no compilation, no evaluation, as in the public records. Each recipe runs with
each of `SEEDS`; the question is when `modern` is where the speedrun ends. "sooner" is `modern` planned for fewer steps from the
start, as who wants only that result would: its learning rates come down earlier.
`DATA`: a folder of parquet shards, read again if it has less than `STEPS` take. `DEPTH` 8, `SEQ_LEN` 1024, `VOCAB` 32,768,
`STEPS` 640 of `BATCH` 65,536 tokens, `SEEDS` 1,2.
`JOBS`: names, comma-separated. `MORE`: JSON of more of them, each with overrides of `modern` as it runs here, for ablations:
`MORE='{"no value embeds": {"model.value_embeds": false}}'`. `QUICK=1`: seconds on a CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import torch

import rustbpe
from benchmarks.cards import spread
from benchmarks.result import ROOT, Row, cpu, finish, row, slug
from nanochat.config.recipe import SPECIAL_TOKENS, resolve
from nanochat.contract import events
from nanochat.contract.contract import EVENTS, SPEC, Artifact, StageSpec, seal, write_json
from nanochat.data.shards import Shard, folder_shards, write_index
from nanochat.tokenizer import Tokenizer

QUICK = os.environ.get("QUICK") == "1"
DATA = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data" / "pretrain"))
SIZES = {"DEPTH": (8, 2), "SEQ_LEN": (1024, 128), "VOCAB": (32_768, 2048), "BATCH": (65_536, 1024), "STEPS": (640, 30)}
DEPTH, SEQ_LEN, VOCAB, BATCH, STEPS = (int(os.environ.get(name, sizes[QUICK])) for name, sizes in SIZES.items())
SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1,2").split(",")]
EVALS = 12
SOONER = 0.68  # of the steps; each takes some 8 % longer than the speedrun's
# A small batch's rates are a fraction of the reference's with `scale_lr`: over so few steps that costs more than it steadies. And
# of rows that begin with documents, as the recipe packs them, long documents' ends are left out: other text than the speedrun's,
# 31 % of it unread, against validation in a stream. Text is to be the same here.
# At the recipe's rate of 0.5, made for 5,000 steps, all `x0` may walk off together, to 4.6 within 121 steps, and end the run 0.05
# bits per byte higher, by the seed; matrices at 0.03 gain 0.01 at step 147 (docs/training.md).
MODERN = {"base.scale_lr": False, "base.packing": "stream", "base.optim.x0.lr": 0.05, "base.optim.matrix_lr": 0.03}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "speedrun": ("speedrun", {}),
    "modern bf16": ("modern", MODERN),
    "modern bf16 sooner": ("modern", MODERN | {"base.num_iterations": round(SOONER * STEPS)}),
    "modern fp8": ("modern", MODERN | {"base.precision": "fp8"}),
}
RECIPES |= {name: ("modern", MODERN | changes) for name, changes in json.loads(os.environ.get("MORE", "{}")).items()}
ON_CPU = [name for name in RECIPES if "fp8" not in name]
MUST, AIM = 1 / 0.75, 1 / 0.6  # how many times sooner

Curve = dict[str, Any]


def main() -> None:
    if not DATA.is_dir():
        raise SystemExit(
            f"no folder {DATA}: set DATA to a folder of parquet shards with a column `text`, the last for validation"
        )
    cuda = torch.cuda.is_available()
    names = os.environ.get("JOBS", ",".join(RECIPES if cuda else ON_CPU)).split(",")
    if unknown := set(names) - set(RECIPES):
        raise SystemExit(f"JOBS has {', '.join(sorted(unknown))}; there are: {', '.join(RECIPES)}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        inputs = build(root)
        pieces = [(name, seed) for name in names for seed in SEEDS]  # of two cards each has one of a recipe's two seeds
        cards = torch.cuda.device_count() if cuda else 1
        found = spread(pieces, cards, lambda piece, env: trained(root, inputs, *piece, env))
    curves = [curve for curve in found if curve]
    device = slug(torch.cuda.get_device_name()) if cuda else cpu()
    finish("curves", device, rows(curves, names))


def build(root: Path) -> dict[str, Artifact]:
    """What pretraining reads: the shards as they lie, and one tokenizer of them for all recipes."""
    train, val = folder_shards(DATA)
    write_index(root / "shards", *([Shard(str(p), p.stat().st_size) for p in paths] for paths in (train, val)))
    merges = rustbpe.train_parquet([str(p) for p in train], VOCAB - len(SPECIAL_TOKENS), doc_cap=10_000, max_chars=60_000_000)
    Tokenizer.from_merges(merges).save(root / "tokenizer")
    (root / "core").mkdir()
    write_json(root / "core" / "core.json", {"root": None})
    return {name: seal(root / name, name=name) for name in ("shards", "tokenizer", "core")}


def trained(root: Path, inputs: dict[str, Artifact], name: str, seed: int, env: dict[str, str]) -> Curve:
    """One run of the stage, as the platform runs it. {} with its last words on the terminal when it failed."""
    recipe, changes = RECIPES[name]
    micro = min(64, BATCH // SEQ_LEN)
    changes = {
        "tokenizer.vocab_size": VOCAB,
        "model.depth": DEPTH,
        "model.seq_len": SEQ_LEN,
        "base.total_batch_size": BATCH,
        "base.device_batch_size": micro,
        "base.num_iterations": STEPS,
        "base.shuffle": True,  # packings (`MORE`) differ in speed through the text: its order must not decide what comes last
        "base.eval_every": STEPS // EVALS,
        "base.eval_tokens": micro * SEQ_LEN * (2 if QUICK else 16),
        "base.core_every": -1,
        "base.sample_every": -1,
        "base.save_every": -1,
    } | changes
    # The mid stage's batch must divide, too, though it is not run.
    config = resolve(recipe, changes | {"mid.total_batch_size": BATCH}).model_dump(mode="json")
    out = root / f"{name} {seed}".replace(" ", "-")
    spec = StageSpec(
        run="curves", stage="base_train", kind="base_train", config=config, seed=seed, inputs=inputs,
        output_dir=str(out), cache_dir=str(root / "cache"),
    )  # fmt: skip
    out.mkdir()
    (out / SPEC).write_text(spec.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "nanochat", "base_train", "--spec", str(out / SPEC)]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    seen = list(events.read(out / EVENTS))
    if done.returncode:
        said = [e["message"] for e in seen if e["kind"] == "error"]
        print(f"{name}, seed {seed} failed: {said or done.stderr[-2000:]}", flush=True)
        return {}
    results = next(Path(e["path"]) / "results.json" for e in seen if e["kind"] == "artifact" and e["name"] == "results")
    figures = json.loads(results.read_text(encoding="utf-8"))
    bpb = {e["step"]: e["values"]["val_bpb"] for e in seen if e["kind"] == "metric" and "val_bpb" in e["values"]}
    seconds = BATCH / figures["tok_per_s"]
    said = ", ".join(f"{value:.4f}" for value in bpb.values())
    print(f"{name:<18} seed {seed}: {figures['tok_per_s']:,.0f} tok/s, bits per byte {said}", flush=True)
    return {"name": name, "seed": seed, "step_s": seconds, "steps": list(bpb), "bpb": [round(v, 5) for v in bpb.values()]}


def rows(curves: list[Curve], names: list[str]) -> list[Row]:
    by_name: dict[str, list[Curve]] = defaultdict(list)
    for curve in sorted(curves, key=lambda c: c["seed"]):
        by_name[curve["name"]].append(curve)
    out: list[Row] = []
    for name in (name for name in names if name in by_name):
        runs = by_name[name]
        final = [run["bpb"][-1] for run in runs]
        out.append(row(f"{name}: last bits per byte", mean(final), "bpb", "lower", each=final, runs=runs))
        out.append(row(f"{name}: time", mean(run["step_s"] * run["steps"][-1] for run in runs), "s", "lower"))
    seed_runs = by_name.get("speedrun", [])
    for name in [n for n in by_name if n != "speedrun"] if seed_runs else []:
        goal = mean(run["bpb"][-1] for run in seed_runs)
        took = mean(run["step_s"] * run["steps"][-1] for run in seed_runs)
        when = [reached(run, goal) for run in by_name[name]]
        if None in when:
            ended = mean(run["step_s"] * run["steps"][-1] for run in by_name[name])
            out.append(
                row(f"{name}: ends short of the speedrun's {goal:.4f} bpb", ended, "s", "lower", must=took / MUST, ok=False)
            )
        else:
            sooner = mean(t for t in when if t is not None)
            out.append(row(f"{name}: at the speedrun's {goal:.4f} bpb", sooner, "s", "lower", "speedrun", took, MUST, AIM))
    return out


def reached(run: Curve, goal: float) -> float | None:
    """Seconds until the curve, linear between evaluations, is down at `goal`."""
    points = list(zip(run["steps"], run["bpb"], strict=True))
    for (step, high), (after, low) in pairwise(points):
        if low <= goal:
            return float(run["step_s"] * (step + (after - step) * max(0.0, high - goal) / max(high - low, 1e-9)))
    return None


if __name__ == "__main__":
    main()
