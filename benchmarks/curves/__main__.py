"""How much sooner `modern` reaches the bits per byte at which nanochat's speedrun recipe ends, on the same text.

Time is the number of steps times the sustained seconds per step, without compilation and evaluation, as in public speed
records. Every job runs once with each seed. "modern bf16 sooner" is planned for 0.68 of the steps from the start, as
somebody who wants only the speedrun's result would plan it: its learning rates come down earlier.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import rustbpe
from benchmarks.cards import cards, device, spread
from benchmarks.curves.curve import Curve
from benchmarks.curves.recipes import FULL, QUICK, Sizes, config, jobs, more_jobs
from benchmarks.options import (
    Options,
    Parser,
    default_data,
    positive_int,
    positive_ints,
    shards_folder,
    split_names,
    unknown_names,
)
from benchmarks.result import Measurement, finish, measurement
from nanochat.config.recipe import SPECIAL_TOKENS, RecipeError
from nanochat.contract import events
from nanochat.contract.contract import EVENTS, SPEC, Artifact, StageSpec, seal, write_json
from nanochat.data.folder import folder_shards
from nanochat.data.shards import Shard, write_index
from nanochat.tokenizer import Tokenizer

MUST, AIM = 1 / 0.75, 1 / 0.6  # the speedrun's time over ours
TOKENIZER_CHARS = 60_000_000


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(Options):
    data: Path | None
    jobs: list[str] | None
    more: dict[str, dict[str, Any]]
    seeds: list[int]
    depth: int | None
    seq_len: int | None
    vocab: int | None
    batch: int | None
    steps: int | None

    @property
    def sizes(self) -> Sizes:
        default = asdict(QUICK if self.quick else FULL)
        return Sizes(**{name: getattr(self, name) or value for name, value in default.items()})


def parser() -> Parser:
    made = Parser("curves", __doc__)
    made.add_argument(
        "--data",
        type=shards_folder,
        default=default_data(),
        metavar="FOLDER",
        help="parquet shards with a column `text`, the last for validation (../shared/data/pretrain); read again when used up",
    )
    named = ", ".join(jobs(FULL, {}))
    made.add_argument(
        "--jobs", type=split_names, metavar="NAME,…", help=f"of {named} and those of --more (all; no fp8 on a CPU)"
    )
    made.add_argument(
        "--more",
        type=more_jobs,
        default={},
        metavar="JSON",
        help="more jobs, each with overrides of `modern` as it runs here: %(prog)s "
        """--more '{"no value embeds": {"model.value_embeds": false}}'""",
    )
    made.add_argument("--seeds", type=positive_ints, default=[1, 2], metavar="N,…", help="one run per job with each (1,2)")
    about = {
        "depth": "of the model",
        "seq_len": "tokens per row",
        "vocab": "size of the vocabulary",
        "batch": "tokens per step",
        "steps": "optimizer steps",
    }
    for name, text in about.items():
        sizes = f"{getattr(FULL, name)}, or {getattr(QUICK, name)} with --quick"
        made.add_argument(f"--{name.replace('_', '-')}", type=positive_int, metavar="N", help=f"{text} ({sizes})")
    return made


def main(argv: list[str] | None = None) -> None:
    command = parser()
    options = command.parse(CurvesOptions, argv)
    known = jobs(options.sizes, options.more)
    if not options.data:
        command.error("argument --data: give a folder of parquet shards with a column `text`, the last for validation")
    if problem := unknown_names(options.jobs or [], known):
        command.error(f"argument --jobs: {problem}")
    names = options.jobs or list(known)
    try:
        configs = {name: config(known[name], options.sizes, options.quick) for name in names}
    except RecipeError as err:
        command.error(str(err))
    gpus = len(cards())
    if not (options.jobs or gpus):
        names = [name for name in names if configs[name]["base"]["precision"] != "fp8"]

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        inputs = build(root, options.data, options.sizes.vocab)
        runs = [(name, seed) for name in names for seed in options.seeds]  # two GPUs take one seed of a job each
        found = spread(runs, gpus or 1, lambda run, env: trained(root, inputs, *run, configs[run[0]], env))
    finish("curves", device(), compared([curve for curve in found if curve], names), options)


def build(root: Path, data: Path, vocab: int) -> dict[str, Artifact]:
    """The inputs of pretraining: the shards where they are, and one tokenizer for all jobs."""
    train, val = folder_shards(data)
    write_index(root / "shards", *([Shard(str(p), p.stat().st_size) for p in paths] for paths in (train, val)))
    paths = [str(path) for path in train]
    merges = rustbpe.train_parquet(paths, vocab - len(SPECIAL_TOKENS), doc_cap=10_000, max_chars=TOKENIZER_CHARS)
    Tokenizer.from_merges(merges).save(root / "tokenizer")
    (root / "core").mkdir()
    write_json(root / "core" / "core.json", {"root": None})
    return {name: seal(root / name, name=name) for name in ("shards", "tokenizer", "core")}


def trained(
    root: Path, inputs: dict[str, Artifact], name: str, seed: int, config: dict[str, Any], env: dict[str, str]
) -> Curve | None:
    """One run of the stage as the platform runs it; None when it failed, which is told on the terminal."""
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
        return None
    results = next(Path(e["path"]) / "results.json" for e in seen if e["kind"] == "artifact" and e["name"] == "results")
    speed = json.loads(results.read_text(encoding="utf-8"))["tok_per_s"]
    bpb = {e["step"]: round(e["values"]["val_bpb"], 5) for e in seen if e["kind"] == "metric" and "val_bpb" in e["values"]}
    values = ", ".join(f"{value:.4f}" for value in bpb.values())
    print(f"{name:<18} seed {seed}: {speed:,.0f} tok/s, bits per byte {values}", flush=True)
    return Curve(name, seed, config["base"]["total_batch_size"] / speed, list(bpb), list(bpb.values()))


def compared(curves: list[Curve], names: list[str]) -> list[Measurement]:
    by_name: dict[str, list[Curve]] = defaultdict(list)
    for curve in sorted(curves, key=lambda c: c.seed):
        by_name[curve.name].append(curve)
    rows: list[Measurement] = []
    for name in (name for name in names if name in by_name):
        runs = by_name[name]
        final = [run.bpb[-1] for run in runs]
        rows.append(
            measurement(
                f"{name}: last bits per byte", mean(final), "bpb", "lower", each=final, runs=[asdict(run) for run in runs]
            )
        )
        rows.append(measurement(f"{name}: time", mean(run.seconds for run in runs), "s", "lower"))
    speedrun = by_name.get("speedrun", [])
    for name in [n for n in by_name if n != "speedrun"] if speedrun else []:
        goal, took = mean(run.bpb[-1] for run in speedrun), mean(run.seconds for run in speedrun)
        when = [reached for run in by_name[name] if (reached := run.reached(goal)) is not None]
        if len(when) < len(by_name[name]):
            ended = mean(run.seconds for run in by_name[name])
            short = f"{name}: ends short of the speedrun's {goal:.4f} bpb"
            rows.append(measurement(short, ended, "s", "lower", must=took / MUST, ok=False))
        else:
            goal_name = f"{name}: at the speedrun's {goal:.4f} bpb"
            rows.append(measurement(goal_name, mean(when), "s", "lower", "speedrun", took, MUST, AIM))
    return rows


if __name__ == "__main__":
    main()
