"""The stage of the campaign. It does all that `base_train` does, but for the mathematics: a step is a millisecond of sleep.

The loss of a step depends on all steps before it, so a run that resumed from the wrong state has another curve. `shim` puts this
file in the place of `nanochat.stages.base_train`; everything around it, from torchrun to the exit report, is the real program.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from nanochat.contract import lease
from nanochat.contract.contract import Exit, StageContext, StageError, checkpoint_gone, seal, verify
from nanochat.contract.stop import StopRequest

SAVING, OVER = "saving", "over"
KEPT = 2  # checkpoints


@dataclass(frozen=True)
class Plan:
    """What the run under a fault is made of. `slow_save` is a step; its checkpoint stays half-written for `slow_save_s`."""

    steps: int = 120
    step_s: float = 0.015
    save_every: int = 20
    slow_save: int = -1
    slow_save_s: float = 3.0
    ignore_stop: bool = False
    together: bool = False  # all ranks, on whatever machines, go through every step in one process group (gloo)
    strange_time_at: int = -1  # a step that reports an event whose time no clock can show
    lines_at: int = -1  # a step that prints 200,000 empty lines
    noise_at: int = -1  # a step that prints one line of 20 MB, and bytes that are no text


def state_after(step: int, state: int = 1, since: int = 0) -> int:
    for number in range(since + 1, step + 1):
        state = (state * 6364136223846793005 + number) % 2**64
    return state


def loss_of(state: int) -> float:
    return float(state / 2**64)


def run(ctx: StageContext) -> None:
    plan = Plan(**ctx.spec.config)
    if plan.together:
        from nanochat.distributed import ranks

        with ranks("cpu") as group:
            _train(ctx, plan, group.any)
    elif ctx.rank == 0:
        _train(ctx, plan, bool)
    else:
        while not (ctx.out / OVER).exists():
            time.sleep(0.02)


def _train(ctx: StageContext, plan: Plan, any_rank: Callable[[bool], bool]) -> None:
    step, state = _resume(ctx)
    with StopRequest(ctx) as stop:
        while step < plan.steps:
            step += 1
            state = state_after(step, state, step - 1)
            time.sleep(plan.step_s)
            ctx.events.emit("metric", step=step, values={"loss": loss_of(state)})
            if step == plan.strange_time_at:
                _emit_strange_time(ctx)
            if step == plan.lines_at:
                os.write(1, b"\n" * 200_000)
            if step == plan.noise_at:
                sys.stdout.buffer.write(b"x" * 20_000_000 + b"\n\xff\xfe\x00\x1b[31m\n")
            stopped = any_rank(bool(stop)) and not plan.ignore_stop
            if ctx.rank == 0 and (step % plan.save_every == 0 or stopped):
                _save(ctx, plan, step, state)
            if stopped:
                raise StageError("stopped on request", code="stopped", exit_code=Exit.STOPPED)
    if ctx.rank != 0:
        return
    _save(ctx, plan, step, state, final=True)
    model = ctx.out / "model"
    model.mkdir()
    (model / "state.json").write_text(json.dumps({"step": step, "state": state}))
    ctx.publish("model", model)
    (ctx.out / OVER).touch()


def _resume(ctx: StageContext) -> tuple[int, int]:
    if ctx.spec.resume_from is None:
        return 0, 1
    try:
        saved = json.loads((verify(ctx.spec.resume_from) / "state.json").read_text())
    except StageError as err:
        raise checkpoint_gone(ctx.spec, err) from err
    return saved["step"], saved["state"]


def _save(ctx: StageContext, plan: Plan, step: int, state: int, *, final: bool = False) -> None:
    folder = ctx.out / ("final" if final else f"checkpoints/step_{step:06d}")
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"step": step, "state": state, "padding": "x" * 10_000})
    with (folder / "state.json").open("w") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        if step == plan.slow_save:
            (ctx.out / SAVING).touch()
            time.sleep(plan.slow_save_s)
        file.write(content[len(content) // 2 :])
    sealed = seal(folder)
    ctx.events.emit("checkpoint", step=step, path=sealed.path, sha256=sealed.sha256, bytes=len(content), final=final)
    older = sorted((ctx.out / "checkpoints").glob("step_*"))[:-KEPT]
    for old in older if lease.may_delete(ctx.out) else ():
        ctx.events.emit("checkpoint_deleted", step=int(old.name.split("_")[1]), path=str(old.resolve()))
        shutil.rmtree(old)


def _emit_strange_time(ctx: StageContext) -> None:
    line = json.dumps({"v": 1, "seq": ctx.events._seq, "t": 1e300, "kind": "log", "level": "info", "message": "x"})
    os.write(ctx.events._fd, line.encode() + b"\n")
    ctx.events._seq += 1
