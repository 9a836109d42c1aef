"""CORE: the mean centered accuracy of a base model over 22 in-context tasks (Li et al. 2024, DataComp-LM).

The mean is called CORE only when all 22 tasks ran. If only a sample of their items ran, it is marked as an estimate.
Differences below about 0.015 are noise: seven identical runs of nanochat spread over 0.0165.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.distributed import Ranks
from nanochat.eval import core_prompts
from nanochat.eval.core_bundle import ROWS, CoreTask, Item, read_items, read_tasks
from nanochat.eval.core_prompts import ScoredSequence
from nanochat.model import GPT
from nanochat.model.loss import softcap
from nanochat.tokenizer import Tokenizer

WINDOW = 256  # items that are tokenized, and sorted by length, together
LENGTH_STEP = {"cuda": 64}  # padded lengths are multiples of this: cuDNN plans for about 30 ms for every new shape
LOGITS = {"cpu": 1 << 24, "cuda": 1 << 28}  # number of logits in memory at once


class TaskResult(TypedDict):
    """`accuracy` is 0 to 1; `centered` is 0 for guessing and 1 for all right. `n` items ran, of `rows` in the file."""

    accuracy: float
    centered: float
    n: int
    rows: int


@dataclass(frozen=True, slots=True)
class CoreResult:
    """`core` is None unless all 22 tasks ran. `estimate` is true if any task ran on a sample of its items only.

    `missing` tasks have no file. `partial` tasks have fewer rows than the published task: they have a figure of their own, but
    there is no CORE.
    """

    core: float | None
    tasks: dict[str, TaskResult] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)
    estimate: bool = False


@torch.no_grad()
def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    bundle: Path | None,
    ranks: Ranks,
    *,
    max_per_task: int | None,
    batch_tokens: int = 16_384,
    progress: Callable[[int, int, str], None] | None = None,
    on_task: Callable[[str, TaskResult], None] | None = None,
) -> CoreResult:
    """Run the tasks of the bundle, at most `max_per_task` items of each. Ranks share the items, so every rank must call this.

    `batch_tokens` bounds one forward pass. `progress(done, total, label)` counts the items of all tasks; it assumes that other
    ranks are as far as this one. `on_task(label, result)` is called after each task. Prompts that are longer than the model's
    context lose their beginning. Raises StageError when the bundle is damaged.
    """
    tasks = read_tasks(bundle) if bundle else []
    loaded = {task.label: read_items(task) for task in tasks if task.file.is_file()}
    counts = {label: min(len(items), max_per_task or len(items)) for label, items in loaded.items()}
    total, done = sum(counts.values()), 0
    results: dict[str, TaskResult] = {}
    for task in tasks:
        if task.label not in loaded:
            continue
        items, n = loaded.pop(task.label), counts[task.label]
        right = 0
        for window in _windows(range(ranks.rank, n, ranks.world_size)):
            right += _count_right(model, tokenizer, task, items[: max(n, task.shots + 1)], window, ranks, batch_tokens)
            done += len(window) * ranks.world_size
            if progress:
                progress(min(done, total), total, task.label)
        accuracy = ranks.sum(right)[0] / n if n else 0.0
        centered = (accuracy - task.baseline) / (1 - task.baseline)
        results[task.label] = {"accuracy": accuracy, "centered": centered, "n": n, "rows": len(items)}
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
    )


def _windows(indices: range) -> Iterator[range]:
    for start in range(0, len(indices), WINDOW):
        yield indices[start : start + WINDOW]


def _count_right(
    model: GPT, tokenizer: Tokenizer, task: CoreTask, items: Sequence[Item], indices: range, ranks: Ranks, batch_tokens: int
) -> int:
    """Count the items among items[indices] that the model answers correctly."""
    texts = [core_prompts.prompts(task, items[i], core_prompts.shots_for(items, i, task.shots)) for i in indices]
    threads = max(1, (os.cpu_count() or 1) // ranks.world_size)
    encoded = iter(tokenizer.encode_batch([t for group in texts for t in group], num_threads=threads))
    groups = [core_prompts.rows(task, [next(encoded) for _ in group], tokenizer.bos) for group in texts]
    rows = [row.cropped(model.rotary.length) for group in groups for row in group]
    with ranks.autocast():
        scores = iter(_scores(model, rows, tokenizer.bos, ranks.device, batch_tokens))
    right = 0
    for index, group in zip(indices, groups, strict=True):
        losses, exact = zip(*(next(scores) for _ in group), strict=True)
        right += exact[0] if task.kind == "language_modeling" else losses.index(min(losses)) == items[index]["gold"]
    return right


def _scores(
    model: GPT, rows: Sequence[ScoredSequence], pad: int, device: torch.device, batch_tokens: int
) -> list[tuple[float, bool]]:
    """For each row: the mean cross entropy of its span in nats, and whether every token of the span is the most likely one."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))  # longest first: too little memory shows at once
    found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
    while order:
        length = len(rows[order[0]].ids)
        step = LENGTH_STEP.get(device.type, 1)
        length = min(-(-length // step) * step, model.rotary.length)
        batch, order = order[: max(1, batch_tokens // length)], order[max(1, batch_tokens // length) :]
        for index, score in zip(batch, _score_batch(model, [rows[i] for i in batch], length, pad, device), strict=True):
            found[index] = score
    return found


def _score_batch(
    model: GPT, rows: Sequence[ScoredSequence], length: int, pad: int, device: torch.device
) -> list[tuple[float, bool]]:
    ids = torch.tensor([row.ids + [pad] * (length - len(row.ids)) for row in rows])
    spans = [row.end - row.start for row in rows]
    owner = torch.arange(len(rows)).repeat_interleave(torch.tensor(spans))
    place = torch.cat([torch.arange(row.start, row.end) for row in rows])
    targets = ids[owner, place].to(device)
    # Apply the head only to the positions of the spans: with 65,536 tokens in the vocabulary, the logits of whole prompts
    # would take gigabytes.
    states = model.hidden(ids.to(device))[owner.to(device), place.to(device) - 1]
    losses, hits = _head(model, states, targets)
    ends = list(accumulate(spans))
    return [
        (losses[end - span : end].mean().item(), bool(hits[end - span : end].all()))
        for span, end in zip(spans, ends, strict=True)
    ]


def _head(model: GPT, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """For states (N, C) and targets (N,): the losses, and whether the target has the highest logit, both (N,) on the CPU."""
    size = max(1, LOGITS.get(states.device.type, 1 << 24) // model.config.vocab_size)
    losses, hits = [], []
    for start in range(0, len(targets), size):
        logits, target = softcap(model.lm_head(states[start : start + size])), targets[start : start + size]
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        hits.append(logits.argmax(dim=-1) == target)
    return torch.cat(losses).cpu(), torch.cat(hits).cpu()
