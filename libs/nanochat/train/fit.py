"""The device batch of a training stage: what the plan says the GPU found here holds, and half of that when it was too much.

Stepping down starts the attempt's work again, from fresh weights or from what it resumed from, so that its losses are those
of an attempt that had the smaller batch from the start. Memory runs out in the first step or hardly ever, so little is lost.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from nanochat.config.recipe import TrainSpec
from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.distributed import Ranks
from nanochat.planning.batches import BatchSplit
from nanochat.train.checkpoint import Resume
from nanochat.train.loop import Trainer


def choose(ranks: Ranks, resume: Resume | None, planned: Callable[[float | None], BatchSplit]) -> BatchSplit:
    """`planned(memory_gib)` for the smallest GPU of all ranks, None when they have none; no more at a time than the attempt
    that is resumed had, which may have found that less fits than was planned."""
    batch = planned(_memory_gib(ranks))
    before = resume.loop.get("device_batch_size", 0) if resume and resume.world_size == ranks.world_size else 0
    rows = batch.size * batch.accumulation
    return BatchSplit(before, rows // before) if 0 < before < batch.size and rows % before == 0 else batch


def train(
    ctx: StageContext, ranks: Ranks, section: str, spec: TrainSpec, batch: BatchSplit, build: Callable[[BatchSplit], Trainer]
) -> dict[str, Any]:
    """Run `build(batch)` to its end; once, with half the batch, when memory runs out before this attempt's first checkpoint.

    Ranks must agree to step down, and one that failed in the middle of a step cannot tell the others, which wait for its
    gradients: several ranks try the batch first and step down together then. Raises StageError "out_of_memory" when the
    smaller batch is too much as well, or when a checkpoint had been saved or ranks had begun.
    """
    if batch.size < spec.device_batch_size:
        memory = _memory_gib(ranks)
        why = f"to fit {memory:.1f} GiB" if memory else "as before"
        wanted = f"the recipe's {section}.device_batch_size is {spec.device_batch_size}"
        ctx.events.emit("log", level="info", message=f"{_shape(batch)}, {why}; {wanted}")
    try:
        return _run(ranks, section, batch, build, may_step_down=True)
    except _StepDown as err:
        said = str(err)
    _release(ranks)  # not in the handler, which holds the tensors of the failed step
    smaller = batch.halved()
    ctx.events.emit("warning", code="out_of_memory", message=f"{said}; starting again with {_shape(smaller)}")
    torch.manual_seed(ctx.spec.seed)
    return _run(ranks, section, smaller, build, may_step_down=False)


class _StepDown(Exception):
    """Memory ran out on all ranks alike and a smaller batch may be tried."""


def _run(
    ranks: Ranks, section: str, batch: BatchSplit, build: Callable[[BatchSplit], Trainer], *, may_step_down: bool
) -> dict[str, Any]:
    trainer, start, begun = None, None, False
    try:
        trainer = build(batch)
        trainer.state.device_batch_size = batch.size
        start = trainer.last_saved
        if ranks.world_size > 1:
            _rehearse(trainer, batch)
        begun = True
        return trainer.run()
    except torch.OutOfMemoryError as err:
        saved = trainer.last_saved if trainer else None
        alike = ranks.world_size == 1 or (trainer is not None and not begun)
        step = f" at step {trainer.state.step}" if trainer else ""
        said = f"out of memory with {section}.device_batch_size {batch.size}{step}: {_beginning(err)}"
        if may_step_down and alike and saved == start and batch.size % 2 == 0:
            raise _StepDown(said) from None
        less = f"set {section}.device_batch_size to {batch.size // 2} or less" if batch.size > 1 else "make the model smaller"
        raise StageError(
            f"{said}; the last checkpoint is of step {saved}" if saved else said,
            code="out_of_memory",
            hint=f"{less}, or use GPUs with more memory",
            exit_code=Exit.FAILED,
        ) from err


def _rehearse(trainer: Trainer, batch: BatchSplit) -> None:
    """Forward and backward over rows of full length, with no effect but on memory. Raises OutOfMemoryError on every rank when
    one has run out."""
    said = ""
    try:
        _pass(trainer, batch)
    except torch.OutOfMemoryError as err:
        said = str(err) or type(err).__name__
    trainer.optimizer.zero_grad()
    if trainer.ranks.any(bool(said)):
        raise torch.OutOfMemoryError(said or "another process ran out of memory")


def _pass(trainer: Trainer, batch: BatchSplit) -> None:
    ranks, config = trainer.ranks, trainer.job.model.config
    ids = torch.arange(batch.size * config.sequence_len, device=ranks.device).view(batch.size, -1) % config.vocab_size
    with ranks.autocast():
        loss = trainer.forward(ids, ids)
    torch.autograd.backward(loss)


def _release(ranks: Ranks) -> None:
    gc.unfreeze()  # the loop froze what lived after its first step
    gc.collect()
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(ranks.device)


def _memory_gib(ranks: Ranks) -> float | None:
    """Of the smallest GPU among all ranks'; None where there are none."""
    if ranks.device.type != "cuda":
        return None
    return min(row[0] for row in ranks.gather(torch.cuda.get_device_properties(ranks.device).total_memory / 2**30))


def _shape(batch: BatchSplit) -> str:
    return f"{batch.size} rows at a time, {batch.accumulation} times a step"


def _beginning(err: torch.OutOfMemoryError) -> str:
    """What ran out and how much was wanted; the statistics of the allocator come after that."""
    return ". ".join(str(err).split(". ")[:2]) or type(err).__name__
