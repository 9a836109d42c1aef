"""Choose the device batch of a training stage by the GPU's memory, and halve it once after an out-of-memory error.

After halving, the attempt starts again from where it began: fresh weights, or the checkpoint it resumed from. Its losses are
then the same as if it had used the smaller batch from the start. Memory almost always runs out in the first step, so little
work is lost.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import torch

from nanochat.config.recipe import TrainSpec
from nanochat.config.shape import GPTConfig
from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.distributed import Ranks
from nanochat.planning import memory
from nanochat.planning.batches import BatchSplit
from nanochat.train.checkpoint import Resume
from nanochat.train.loop import Trainer


def choose(ranks: Ranks, resume: Resume | None, planned: Callable[[float | None], BatchSplit]) -> BatchSplit:
    """Return `planned(memory_gib)` for the smallest GPU of all ranks (`memory_gib` is None without GPUs).

    The batch is never larger than that of the attempt that is resumed, which may have found that fewer rows fit than planned.
    """
    batch = planned(_memory_gib(ranks))
    before = resume.loop.get("device_batch_size", 0) if resume and resume.world_size == ranks.world_size else 0
    rows = batch.size * batch.accumulation
    return BatchSplit(before, rows // before) if 0 < before < batch.size and rows % before == 0 else batch


def train(
    ctx: StageContext, ranks: Ranks, section: str, spec: TrainSpec, batch: BatchSplit, build: Callable[[BatchSplit], Trainer]
) -> dict[str, Any]:
    """Run `build(batch)` to its end. If memory runs out, run it once more with half the batch.

    It is run again only before this attempt's first checkpoint. Ranks must also agree to step down, but a rank that fails
    in the middle of a step cannot tell the others, which wait for its gradients. So several ranks try one pass over the
    batch before they train, and step down together if it does not fit.

    Raises StageError "out_of_memory" when half the batch does not fit either, when this attempt has saved a checkpoint, or
    when several ranks have begun to train.
    """
    if batch.size < spec.device_batch_size:
        gib = _memory_gib(ranks)
        why = f"to fit {gib:.1f} GiB" if gib else "as before"
        wanted = f"the recipe's {section}.device_batch_size is {spec.device_batch_size}"
        ctx.events.emit("log", level="info", message=f"{_shape(batch)}, {why}; {wanted}")
    try:
        return _run(ranks, section, batch, build, may_step_down=True)
    except _StepDown as err:
        reason = str(err)
    _release(ranks)  # outside the `except` block, which keeps the tensors of the failed step alive
    smaller = batch.halved()
    ctx.events.emit("warning", code="out_of_memory", message=f"{reason}; starting again with {_shape(smaller)}")
    torch.manual_seed(ctx.spec.seed)
    return _run(ranks, section, smaller, build, may_step_down=False)


class _StepDown(Exception):
    """Memory ran out at the same point on all ranks, so they may try a smaller batch."""


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
        together = ranks.world_size == 1 or (trainer is not None and not begun)
        step = f" at step {trainer.state.step}" if trainer else ""
        reason = f"out of memory with {section}.device_batch_size {batch.size}{step}: {_beginning(err)}"
        if may_step_down and together and saved == start and batch.size % 2 == 0:
            raise _StepDown(reason) from None
        less = f"set {section}.device_batch_size to {batch.size // 2} or less" if batch.size > 1 else "make the model smaller"
        raise StageError(
            f"{reason}; the last checkpoint is of step {saved}" if saved else reason,
            code="out_of_memory",
            hint=f"{less}, or use GPUs with more memory",
            exit_code=Exit.FAILED,
        ) from err


def _rehearse(trainer: Trainer, batch: BatchSplit) -> None:
    """Run forward and backward once over rows of full length, only to see whether they fit.

    Raises OutOfMemoryError on every rank when one rank has run out of memory.
    """
    reason = ""
    try:
        _pass(trainer, batch)
    except torch.OutOfMemoryError as err:
        reason = str(err) or type(err).__name__
    trainer.optimizer.zero_grad()
    if trainer.ranks.any(bool(reason)):
        raise torch.OutOfMemoryError(reason or "another process ran out of memory")


def _pass(trainer: Trainer, batch: BatchSplit) -> None:
    ranks, config = trainer.ranks, trainer.job.model.config
    ids = torch.arange(batch.size * config.sequence_len, device=ranks.device).view(batch.size, -1) % config.vocab_size
    with ranks.autocast():
        loss = trainer.forward(ids, ids)
    torch.autograd.backward(loss)


def _release(ranks: Ranks) -> None:
    gc.unfreeze()  # the loop called gc.freeze() after its first step
    gc.collect()
    if ranks.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(ranks.device)


def positions(ranks: Ranks, config: GPTConfig, rows: int) -> int:
    """How many positions an uncompiled model takes at a time (`memory.positions`). Every rank must call this."""
    gib = _memory_gib(ranks)
    return memory.positions(config, rows, None if gib is None else memory.free_gib(config, ranks.world_size, gib))


def _memory_gib(ranks: Ranks) -> float | None:
    """Memory of the smallest GPU of all ranks; None on other devices."""
    if ranks.device.type != "cuda":
        return None
    return min(row[0] for row in ranks.gather(torch.cuda.get_device_properties(ranks.device).total_memory / 2**30))


def _shape(batch: BatchSplit) -> str:
    return f"{batch.size} rows at a time, {batch.accumulation} times a step"


def _beginning(err: torch.OutOfMemoryError) -> str:
    """The first two sentences: what ran out and how much was requested. The allocator's statistics follow them."""
    return ". ".join(str(err).split(". ")[:2]) or type(err).__name__
