"""Our training beside a plain configuration and beside nanochat's measured speed: d20 at 524,288 tokens per step.

Each configuration runs twice on every GPU, in the order A B C C B A. After that all GPUs train together (`scaling`).
nanochat was measured on H100s with the same shapes (commit 4a87a0d, torch 2.11): 149,558 tok/s, 72.1 GiB; four GPUs
reached 95.4 % of four times one.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any

from benchmarks.cards import cards, device, spread
from benchmarks.options import Options, Parser, names_of, positive_number
from benchmarks.process import JobError, run_job
from benchmarks.result import Measurement, finish, measurement
from benchmarks.train.configuration import CONFIGURATIONS, QUICK, Configuration

NANOCHAT, NANOCHAT_TOK_PER_S = "nanochat, 1 x H100", 149_558
SCALING = "scaling"
ON_GPU, ON_CPU = ["plain", "bf16", "fp8", SCALING], ["plain", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    jobs: list[str] | None
    seconds: float | None
    profile: bool


def main(argv: list[str] | None = None) -> None:
    parser = Parser("train", __doc__)
    parser.add_argument(
        "--jobs",
        type=names_of([*CONFIGURATIONS, SCALING]),
        metavar="NAME,…",
        help=f"of {', '.join([*CONFIGURATIONS, SCALING])} ({','.join(ON_GPU)} on a GPU, {','.join(ON_CPU)} on a CPU)",
    )
    parser.add_argument("--seconds", type=positive_number, metavar="S", help="measured per run (20, or 3 with --quick)")
    parser.add_argument("--profile", action="store_true", help="also tell where the time goes, kernel by kernel; needs a GPU")
    options = parser.parse(TrainOptions, argv)
    if options.jobs and SCALING in options.jobs and "bf16" not in options.jobs:
        parser.error("argument --jobs: scaling is judged by one GPU's speed and needs bf16 as well")
    gpus = len(cards())
    if options.profile and not gpus:
        parser.error("argument --profile: there is no GPU")

    jobs = options.jobs or (ON_GPU if gpus else ON_CPU)
    names = [name for name in jobs if name != SCALING]
    order = names if options.quick else [*names, *reversed(names)]
    head = f"{'':<9} {'tok/s':>10} {'MFU %':>7} {'step ms':>9} {'optim ms':>9} {'GiB':>6} {'start s':>8} {'MHz':>6} {'W':>5}"
    print(head, flush=True)

    def run(name: str, env: dict[str, str]) -> tuple[str, dict[str, Any]]:
        found = measured(name, configuration(name, options), env)
        if found:
            show(name, found)  # at once: a machine that is taken away takes no reading with it
        return name, found

    runs = defaultdict(list)
    for name, found in spread(order, gpus or 1, run):
        if found:
            runs[name].append(found)
    if not runs:
        raise SystemExit("every configuration failed")
    rows = speeds(runs, compared=not options.quick)
    finish("train", device(), rows, options)
    if gpus > 1 and SCALING in jobs and "bf16" in runs:  # last, because several ranks may hang; the rest is recorded by now
        one = mean(run["tok_per_s"] for run in runs["bf16"])
        finish("train", device(), rows + scaling(gpus, one, configuration("bf16", options)), options)


def configuration(name: str, options: TrainOptions) -> Configuration:
    sizes: dict[str, Any] = dict(QUICK) if options.quick else {}
    if options.seconds:
        sizes["seconds"] = options.seconds
    return replace(CONFIGURATIONS[name], **sizes, profile=options.profile)


def measured(name: str, config: Configuration, env: dict[str, str], ranks: int = 1) -> dict[str, Any]:
    """The figures of one run; {} when it failed, which is told on the terminal."""
    try:
        found = run_job("benchmarks.train.job", asdict(config), env=env, ranks=ranks)
    except JobError as err:
        print(f"{name} failed:\n{err.stderr[-3000:]}", flush=True)
        return {}
    if "profile" in found:
        print(f"\n{name}, ms per micro-batch: {found['profile']['ms']}")
        for kernel in found["profile"]["top"]:
            print(f"  {kernel['ms']:8.2f} ms {kernel['launches']:5d} x {kernel['kernel']}")
        for one in found["profile"]["products"]:
            print(f"  {one['ms']:8.2f} ms {one['launches']:5d} x {one['product']}, {one['tflops']} TFLOP/s")
    return found


def show(name: str, one: dict[str, Any]) -> None:
    cells = [one["tok_per_s"], one["mfu"], one["step_ms"], one["optimizer_ms"], one["peak_gib"], one["compile_s"]]
    text = [f"{cell:,.1f}" if cell is not None else "–" for cell in (*cells, one.get("sm_mhz"), one.get("watts"))]
    widths = (10, 7, 9, 9, 6, 8, 6, 5)
    print(f"{name:<9} " + " ".join(f"{cell:>{width}}" for cell, width in zip(text, widths, strict=True)), flush=True)


def speeds(runs: dict[str, list[dict[str, Any]]], compared: bool) -> list[Measurement]:
    """Speed, memory and start-up time of each configuration, averaged over its runs; if `compared`, beside nanochat as well."""
    rows: list[Measurement] = []
    speed = {name: mean(r["tok_per_s"] for r in found) for name, found in runs.items()}
    for name, found in runs.items():
        card = {key: round(mean(r[key] for r in found), 1) for key in ("sm_mhz", "watts", "mfu") if found[0].get(key)}
        peer, must = {"bf16": ("plain", 1.10), "fp8": ("bf16", 1.12)}.get(name, (None, None))
        bound = {"must": must} if peer in speed else {}
        rows.append(
            measurement(name, speed[name], "tok/s", "higher", peer, speed.get(peer or ""), **bound, runs=len(found), **card)
        )
        if found[0]["peak_gib"]:
            memory = mean(r["peak_gib"] for r in found)
            rows.append(measurement(f"{name} peak memory", memory, "GiB", "lower", must=60 if name == "bf16" else None))
            start = max(r["compile_s"] for r in found)
            rows.append(measurement(f"{name} compile + first 2 steps", start, "s", "lower", must=90))
    for name, must, aim in (("bf16", 1.09, 1.17), ("fp8", 1.2035, 1.37)) if compared else ():
        if name in speed:
            rows.append(measurement(name, speed[name], "tok/s", "higher", NANOCHAT, NANOCHAT_TOK_PER_S, must, aim))
    return rows


def scaling(gpus: int, one: float, config: Configuration) -> list[Measurement]:
    name = f"bf16 on {gpus}"
    found = measured(name, replace(config, profile=False), {}, ranks=gpus)
    if not found:
        return []
    show(name, found)
    return [
        measurement(f"{name} GPUs", found["tok_per_s"], "tok/s", "higher", f"{gpus} x one", gpus * one, must=0.97, aim=0.99),
        measurement(f"{name} GPUs, peak memory of one", found["peak_gib"], "GiB", "lower"),
    ]


if __name__ == "__main__":
    main()
