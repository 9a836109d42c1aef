"""CORE: the mean centered accuracy of a base model over 22 in-context tasks (Li et al. 2024, DataComp-LM).

The mean is called CORE only when all 22 tasks ran. If only a sample of their items ran, it is marked as an estimate.
Differences below about 0.015 are noise: seven identical runs of nanochat spread over 0.0165.
"""

from __future__ import annotations

import csv
import functools
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TypedDict

import torch

from nanochat.contract.contract import StageError
from nanochat.data.core_bundle import ROWS, CoreTask, Item, read_items, read_tasks
from nanochat.distributed import Ranks, cores
from nanochat.engine.scorer import Scorer
from nanochat.eval import core_prompts, estimates
from nanochat.eval.halving import Halving
from nanochat.model import GPT
from nanochat.tokenizer import Tokenizer

WINDOW = {"cuda": 1024}  # items that are tokenized and scored together
CPU_WINDOW = 64  # a stop request waits for them


class TaskResult(TypedDict):
    """`accuracy` is 0 to 1, with its standard error `stderr`; `centered` is 0 for guessing (`baseline`) and 1 for all right.

    `n` items ran, of `rows` in the file.
    """

    accuracy: float
    centered: float
    stderr: float
    n: int
    rows: int
    baseline: float


@dataclass(frozen=True, slots=True)
class CoreResult:
    """`core` is None unless all 22 tasks ran. `estimate` is true if any task ran on a sample of its items only.

    `missing` tasks have no figure; of those, `failed` gives the reason of each that has a file but could not be run. `partial` tasks
    have fewer rows than the published task: they have a figure of their own, but there is no CORE. `baselines` are DCLM's original
    ones or those that it corrected later; figures of the two do not compare. `stderr` is that of `core`, from the number of items.
    """

    core: float | None
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    estimate: bool = False
    failed: dict[str, str] = field(default_factory=dict)
    baselines: str = "original"
    stderr: float | None = None


@torch.no_grad()
def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    bundle: Path | None,
    ranks: Ranks,
    *,
    max_per_task: int | None,
    batch_tokens: int = 16_384,
    corrected_baselines: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    on_task: Callable[[str, TaskResult], None] | None = None,
    warn: Callable[[str], None] | None = None,
) -> CoreResult:
    """Run the tasks of the bundle, at most `max_per_task` items of each. Ranks share the items, so every rank must call this.

    `batch_tokens` bounds one forward pass on a CPU. `progress(done, total, label)` counts the items of all tasks; it assumes that other
    ranks are as far as this one. `on_task(label, result)` is called after each task. When memory runs out, less is computed at once and
    `warn` is told. Prompts that are longer than the model's context lose their beginning. A task that cannot be run is among `failed`,
    and the others go on. Raises StageError when the folder is not a bundle.
    """
    tasks = read_tasks(bundle, corrected=corrected_baselines) if bundle else []
    loaded, failed = _loaded(tasks)
    counts = {label: min(len(items), max_per_task or len(items)) for label, items in loaded.items()}
    total, done = sum(counts.values()), 0
    threads = max(1, cores() // ranks.world_size)
    halving = Halving()
    scorer_now = halving.made(lambda share: Scorer(model, dtype=ranks.dtype, batch_tokens=batch_tokens, share=share))
    results: dict[str, TaskResult] = {}
    for task in tasks:
        if task.label not in loaded:
            continue
        items, n = loaded.pop(task.label), counts[task.label]
        right, problem = 0, ""
        for window in _windows(range(ranks.rank, n, ranks.world_size), WINDOW.get(ranks.device.type, CPU_WINDOW)):
            count = functools.partial(
                _count_right, scorer_now, tokenizer, task, items[: max(n, task.shots + 1)], window, threads
            )
            try:
                right += halving.run(count)
            except (StageError, RuntimeError, ValueError) as err:  # of this task alone, and perhaps of this rank alone
                problem = f"{type(err).__name__}: {err}"
                break
            done += len(window) * ranks.world_size
            if progress:
                progress(min(done, total), total, task.label)
        warning = halving.agree(ranks)
        if warning and warn:
            warn(warning)
        right_of_all, broken = ranks.sum(right, bool(problem))
        if broken or not n:
            failed[task.label] = problem or ("it failed on another rank" if broken else f"{task.file} has no rows")
            continue
        results[task.label] = _result(task, right_of_all / n, n, len(items))
        if on_task:
            on_task(task.label, results[task.label])
    missing = [label for label in ROWS if label not in results]
    partial = [label for label, result in results.items() if result["rows"] < ROWS[label]]
    return CoreResult(
        core=None if missing or partial else fmean(r["centered"] for r in results.values()),
        tasks=results,
        missing=missing,
        partial=partial,
        estimate=any(r["n"] < r["rows"] for r in results.values()),
        failed=failed,
        baselines="corrected" if corrected_baselines else "original",
        stderr=None if missing or partial else _stderr(results),
    )


def table(result: CoreResult) -> str:
    """The tasks as CSV, with nanochat's columns first, and CORE as the last row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("Task", "Accuracy", "Centered", "Standard error of accuracy", "Examples"))
    for label, task in result.tasks.items():
        writer.writerow((label, f"{task['accuracy']:.6f}", f"{task['centered']:.6f}", f"{task['stderr']:.6f}", task["n"]))
    if result.core is not None:
        writer.writerow(("CORE", "", f"{result.core:.6f}", f"{result.stderr or 0:.6f}", ""))
    return out.getvalue()


def _loaded(tasks: Sequence[CoreTask]) -> tuple[dict[str, list[Item]], dict[str, str]]:
    """The items of each task that has a file, and what is wrong with those that cannot be read."""
    loaded, failed = {}, {}
    for task in tasks:
        if task.file.is_file():
            try:
                loaded[task.label] = read_items(task)
            except (StageError, OSError) as err:
                failed[task.label] = str(err)
    return loaded, failed


def _result(task: CoreTask, accuracy: float, n: int, rows: int) -> TaskResult:
    scale = 1 - task.baseline
    return {
        "accuracy": accuracy,
        "centered": (accuracy - task.baseline) / scale,
        "stderr": estimates.stderr(accuracy, n),
        "n": n,
        "rows": rows,
        "baseline": task.baseline,
    }


def _stderr(results: dict[str, TaskResult]) -> float:
    """That of the mean centered accuracy: the tasks' errors are independent."""
    return math.hypot(*(r["stderr"] / (1 - r["baseline"]) for r in results.values())) / len(results)


def _windows(indices: range, size: int) -> Iterator[range]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _count_right(
    scorer_now: Callable[[], Scorer],
    tokenizer: Tokenizer,
    task: CoreTask,
    items: Sequence[Item],
    indices: range,
    threads: int,
) -> int:
    """Count the items among items[indices] that the model answers correctly."""
    scorer = scorer_now()
    texts = [core_prompts.prompts(task, items[i], core_prompts.shots_for(items, i, task.shots)) for i in indices]
    encoded = iter(tokenizer.encode_batch([t for group in texts for t in group], num_threads=threads))
    groups = [core_prompts.rows(task, [next(encoded) for _ in group], tokenizer.bos) for group in texts]
    right = 0
    for index, scores in zip(indices, scorer.spans([[row.cropped(scorer.limit) for row in g] for g in groups]), strict=True):
        losses, exact = zip(*scores, strict=True)
        right += exact[0] if task.kind == "language_modeling" else losses.index(min(losses)) == items[index]["gold"]
    return right
