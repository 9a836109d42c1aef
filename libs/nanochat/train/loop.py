"""The training loop that base, mid, SFT and RL share. `TrainingJob` holds everything in which they differ.

Each iteration saves if a save is due, evaluates if an evaluation is due, and then trains one step. Evaluations can fail, for
example because of a damaged file or too little memory. Therefore a save begins before them. After the last step, the checkpoint
is on disk before the evaluations begin; then the model is published with their figures. One small collective per step makes all
ranks agree on everything that ends or changes the loop.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from torch import Tensor

from nanochat import kernels
from nanochat.config.recipe import OptimSpec
from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.contract.stop import StopRequest
from nanochat.distributed import Ranks
from nanochat.model import GPT, accumulate, fp8
from nanochat.model.compiled import compiled
from nanochat.optim import Optimizer
from nanochat.train.checkpoint import Resume
from nanochat.train.divergence import Divergence
from nanochat.train.meter import Meter
from nanochat.train.saver import Saver
from nanochat.train.state import LoopState
from nanochat.train.work import Forward, Impossible, Values, Work


@dataclass(frozen=True, slots=True)
class Callback:
    """Calls `run(step)` on every rank every `every` steps and after the last, but at step 0 only if `at_start`: samples, CORE, chat
    metrics.

    The values that it returns are emitted as metrics and become part of the results.
    """

    every: int
    run: Callable[[int], Values]
    at_start: bool = False


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """Everything in which base, mid, SFT and RL differ.

    `work(forward)` is the source of each step's gradients. `steps` is the number of optimizer steps; if it is None, training ends
    when the work's progress, the passes over the data, reaches 1. `lrm(step, progress)` multiplies the learning rates and
    `decay(step)` the weight decay of matrices; `momentum(step)` is that of Muon. `validate(step)` returns one figure, named
    `val_name`; lower is better unless `higher_is_better`. `from_scratch`: the model is untrained, so ending worse is
    a failure.
    """

    spec: StageTraining
    model: GPT
    work: Callable[[Forward], Work]
    lrm: Callable[[int, float], float]
    momentum: Callable[[int], float]
    val_name: str
    validate: Callable[[int], float]
    tokenizer_sha256: str
    steps: int | None
    accumulation: int = 1
    higher_is_better: bool = False
    lr_scale: float = 1.0
    decay: Callable[[int], float] = lambda _: 1.0
    precision: str = "bf16"
    compile: bool = False
    from_scratch: bool = False
    callbacks: Sequence[Callback] = field(default_factory=tuple)


class StageTraining(Protocol):
    """The fields of a section of the recipe that the loop reads."""

    @property
    def optim(self) -> OptimSpec: ...
    @property
    def eval_every(self) -> int: ...
    @property
    def save_every(self) -> int: ...
    @property
    def keep_checkpoints(self) -> int: ...


class Trainer:
    """Runs a `TrainingJob` from its first step, or from the checkpoint `resume`, and publishes the model."""

    def __init__(self, ctx: StageContext, ranks: Ranks, job: TrainingJob, resume: Resume | None = None):
        self.ctx, self.ranks, self.job = ctx, ranks, job
        self.fp8 = self._apply_fp8()
        self.optimizer = Optimizer(job.model, job.spec.optim, ranks, lr_scale=job.lr_scale, compiled=job.compile)
        if self.fp8:
            self.optimizer.carried["fp8.magnitudes"] = self.fp8.before
        self.copies = accumulate.apply(job.model, ranks.dtype, matmuls=not self.fp8) if kernels.found() else None
        self.forward: Callable[..., Tensor] = compiled(job.model) if job.compile else job.model
        self.state = LoopState()
        self.last_saved: int | None = None
        if resume:
            self.state = LoopState(**resume.loop)
            if job.steps is not None:  # a run that extends another one has more steps than its checkpoint knew of
                self.state.progress = self.state.step / job.steps
            self.last_saved = self.state.step
            resume.restore(self.optimizer, ranks)
            ctx.events.emit("log", level="info", message=f"resumed at step {self.state.step} from {resume.directory}")
        self.meter = Meter(ranks, job.model.flops_per_token())
        self.work = job.work(self.forward)
        self.divergence = None if job.higher_is_better else Divergence(ctx.events, job.val_name)
        self.saver = Saver(
            ctx.out / "checkpoints",
            stage=ctx.spec.stage,
            model=job.model,
            optimizer=self.optimizer,
            ranks=ranks,
            events=ctx.events,
            keep=job.spec.keep_checkpoints,
            ahead=job.spec.save_every > 0,
            may_delete=ctx.may_delete_checkpoints,
        )

    def run(self) -> dict[str, Any]:
        """Train to the end and publish `model`. Returns the figures that every training stage reports.

        Raises StageError with Exit.STOPPED after a stop request, when a checkpoint has been saved; with Exit.NONFINITE when the
        loss or the gradient is not finite, or the model ends worse than untrained; and the errors of the loader and the saver.
        """
        with StopRequest(self.ctx) as self._stop:
            try:
                self._loop()
            finally:
                self.work.close()
                self.saver.close()
        return self._results()

    def _loop(self) -> None:
        stopping = self.ranks.any(bool(self._stop))
        if self._total():
            self._progress()
        while not stopping:
            last = self._done()
            if last or _due(self.job.spec.save_every, self.state.step):
                self._save()
            if last:
                self.saver.finish()
            if self.state.visited != self.state.step:
                self._evaluate(last)
                self.saver.describe(self.state.step, **self._description())
            if last:
                self._save(final=True)
                self.saver.finish()
                return
            stopping = self._step()
        self._stopped()

    # -- one step --

    def _step(self) -> bool:
        """Run one optimizer step. Returns whether any rank has received a stop request."""
        job, state, start = self.job, self.state, time.perf_counter()
        waited = self.work.waited
        lrm = job.lrm(state.step, state.progress)
        try:
            made = self.work.gradients(state.step)
        except Impossible:
            self._save()
            self.saver.finish()
            raise
        momentum, decay = job.momentum(state.step), job.decay(state.step)
        norm = self.optimizer.step(lrm, momentum, decay, targets=made.targets)
        self.optimizer.zero_grad()
        if self.fp8:
            self.fp8.roll()
        if self.copies:
            self.copies.refresh()
        loss, stop = made.loss.item(), float(bool(self._stop))
        mine = (loss, made.tokens, self.work.progress, stop, self.saver.phase, made.weight, *made.sums.values())
        everyone = self.ranks.gather(*mine)
        seconds = time.perf_counter() - start
        loss_now, grad_norm = sum(row[0] for row in everyone) / max(sum(row[5] for row in everyone), 1), norm.item()
        if not (math.isfinite(loss_now) and math.isfinite(grad_norm)):
            self.saver.finish()
            raise self._nonfinite(loss_now, grad_norm)
        self.saver.settle(row[4] for row in everyone)
        figures = self.work.figures({key: sum(row[6 + i] for row in everyone) for i, key in enumerate(made.sums)})
        state.step += 1
        state.tokens += (tokens := round(sum(row[1] for row in everyone)))
        state.train_seconds += seconds
        state.progress = max(row[2] for row in everyone) if job.steps is None else state.step / job.steps
        state.loss_seen(loss_now)
        if self.divergence:
            self.divergence.step(state, loss_now, grad_norm)
        self.meter.step(tokens, seconds)
        stopping = any(row[3] for row in everyone)
        if self.meter.report_due() or self._done() or stopping:
            self._report(lrm, grad_norm, tokens, seconds, (self.work.waited - waited) / seconds, figures)
        if state.step == 1:
            gc.collect()
            gc.freeze()  # objects that exist now exist to the end, so later collections can skip them
        return stopping

    def _done(self) -> bool:
        return self.state.progress >= 1.0

    def _total(self) -> int:
        """The number of steps of the whole stage. It is an estimate if training ends after one pass over the data."""
        if self.job.steps is not None:
            return self.job.steps
        return math.ceil(self.state.step / self.state.progress) if self.state.progress else 0

    def _apply_fp8(self) -> fp8.Magnitudes | None:
        """Switch matrix products to fp8 if the recipe asks for it and the device supports it. Returns their state."""
        if self.job.precision != "fp8":
            return None
        if not fp8.supported(self.ranks.device):
            message = f"this {self.ranks.device.type} device does not support fp8; training in {self.ranks.dtype} instead"
            self.ctx.events.emit("warning", code="no_fp8", message=message)
            return None
        if unfit := fp8.unfit(self.job.model):
            message = f"these matrices stay in bf16, since their sides are not multiples of {fp8.MULTIPLE}: {', '.join(unfit)}"
            self.ctx.events.emit("log", level="info", message=message)
        return fp8.apply(self.job.model)

    # -- evaluating --

    def _evaluate(self, last: bool) -> None:
        step = self.state.step
        if self._validates():
            with self.ranks.autocast():
                value = self.job.validate(step)
            self.state.validated(value)
            self.ctx.events.emit("metric", step=step, values={self.job.val_name: value})
            if self.divergence:
                self.divergence.validated(self.state)
                if last and self.job.from_scratch:
                    self.divergence.refuse(self.state, self.last_saved)
        for callback in self.job.callbacks:
            if callback.at_start if step == 0 else last or _due(callback.every, step):
                with self.ranks.autocast():
                    values = callback.run(step)
                self.state.metrics |= values
                if values:
                    self.ctx.events.emit("metric", step=step, values=values)
        self.state.visited = step

    def _validates(self) -> bool:
        """Whether validation is due at this step."""
        return self._done() or self.state.step == 0 or _due(self.job.spec.eval_every, self.state.step)

    # -- saving and ending --

    def _save(self, *, final: bool = False) -> None:
        step = self.state.step
        if step == 0 or (step == self.last_saved and not final):
            return
        self.saver.save(
            step,
            **self._description(),
            loader_state=self.work.state,
            final=final,
        )
        self.last_saved = step

    def _description(self) -> dict[str, Any]:
        """Metadata, score and loop state of a checkpoint of this step.

        The score is the latest validation figure, negated if higher is better; it is None while the validation of this step is still
        to come.
        """
        to_come = self.state.visited != self.state.step and self._validates()
        figure = None if to_come else self.state.latest
        meta = {"tokenizer_sha256": self.job.tokenizer_sha256, self.job.val_name: figure}
        score = -figure if figure is not None and self.job.higher_is_better else figure
        return {"meta": meta, "score": score, "loop_state": asdict(self.state)}

    def _stopped(self) -> None:
        self._save()
        self.saver.finish()
        saved = (
            f"the last checkpoint is of step {self.last_saved}"
            if self.last_saved
            else "there is no checkpoint, so a new attempt starts from the beginning"
        )
        raise StageError(f"stopped on request after step {self.state.step}; {saved}", code="stopped", exit_code=Exit.STOPPED)

    def _nonfinite(self, loss: float, grad_norm: float) -> StageError:
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the norm of the gradient is {grad_norm}"
        good = f"the last good checkpoint is of step {self.last_saved}" if self.last_saved else "there is no checkpoint yet"
        return StageError(
            f"{what} at step {self.state.step}; {good}",
            code="nonfinite",
            hint="lower the learning rates, or check the data of that step",
            exit_code=Exit.NONFINITE,
        )

    # -- reporting --

    def _report(
        self, lrm: float, grad_norm: float, tokens: int, seconds: float, waited: float, figures: dict[str, float | None]
    ) -> None:
        speed = tokens / seconds
        values = {
            "loss": self.state.loss,
            "lrm": lrm,
            "grad_norm": grad_norm,
            "tok_per_s": speed,
            "dt_ms": 1000 * seconds,
            "mfu": self.meter.mfu(speed),
            "mem_gib": self.meter.mem_gib(),
            "data_wait_pct": 100 * waited,
            "usd": self.meter.usd(self.state.train_seconds),
            **figures,
        }
        self.ctx.events.emit("metric", step=self.state.step, values=values)
        self._progress()

    def _progress(self) -> None:
        total = max(self._total(), self.state.step)
        eta_s = self.meter.eta_s(total - self.state.step)
        self.ctx.events.emit("progress", done=self.state.step, total=total, unit="step", eta_s=eta_s)

    def _results(self) -> dict[str, Any]:
        state, name, speed = self.state, self.job.val_name, self.meter.sustained()
        totals = self.work.totals()
        return {
            name: state.latest,
            f"untrained_{name}": state.untrained,
            f"min_{name}": state.lowest,
            "loss": state.loss,
            "steps": state.step,
            "tokens": state.tokens,
            "train_seconds": state.train_seconds,
            "tok_per_s": speed,
            "mfu": self.meter.mfu(speed),
            "mem_gib": self.meter.mem_gib(),
            "params": self.job.model.num_params(),
            "flops_per_token": self.job.model.flops_per_token(),
            "accumulation": self.job.accumulation,
            "world_size": self.ranks.world_size,
            "device": self.meter.device,
            **dict(zip(totals, map(round, self.ranks.sum(*totals.values())), strict=True)),
            **state.metrics,
        }


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
