"""The loop of reinforcement learning: sample answers, judge them, take an optimizer step, and evaluate and save in between."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from nanochat.config.recipe import RlSpec
from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.contract.stop import StopRequest
from nanochat.distributed import Ranks
from nanochat.engine import Engine
from nanochat.model import GPT
from nanochat.optim import Optimizer, schedule
from nanochat.rl import rollout
from nanochat.rl.rollout import Group
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import Resume
from nanochat.train.meter import Meter
from nanochat.train.saver import Saver


@dataclass(slots=True)
class RlState:
    """The loop's state. Each checkpoint contains it."""

    step: int = 0
    tokens: int = 0  # sampled by the policy
    train_seconds: float = 0.0
    visited: int = -1  # the step of the last evaluation
    rewards: list[float] = field(default_factory=list)  # the mean reward of each step
    pass_at: dict[str, list[float]] = field(default_factory=dict)  # step (a string, as in JSON) -> [pass@1, pass@2, ...]


class RlTrainer:
    """Trains for `steps` steps, from the start or from the checkpoint `resume`, and publishes the model. Every rank has one."""

    def __init__(
        self,
        ctx: StageContext,
        ranks: Ranks,
        spec: RlSpec,
        model: GPT,
        tokenizer: Tokenizer,
        *,
        train: Task,
        test: Task,
        tokenizer_sha256: str,
        resume: Resume | None,
    ):
        self.ctx, self.ranks, self.spec, self.model, self.tokenizer = ctx, ranks, spec, model, tokenizer
        self.train, self.test, self.tokenizer_sha256 = train, test, tokenizer_sha256
        self.steps = spec.num_iterations or max(1, spec.num_epochs * len(train) // spec.examples_per_step)
        self.optimizer = Optimizer(model, spec.optim, ranks, lr_scale=spec.init_lr_frac)
        self.state, self.last_saved = RlState(), 0
        if resume:
            self.state = RlState(**resume.loop)
            self.last_saved = self.state.step
            resume.restore(self.optimizer, ranks)
            ctx.events.emit("log", level="info", message=f"resumed at step {self.state.step} from {resume.directory}")
        self.saver = Saver(
            ctx.out / "checkpoints",
            stage=ctx.spec.stage,
            model=model,
            optimizer=self.optimizer,
            ranks=ranks,
            events=ctx.events,
            keep=spec.keep_checkpoints,
            ahead=spec.save_every > 0,
            may_delete=ctx.may_delete_checkpoints,
        )
        rows = max(spec.device_batch_size, rollout.PASS_AT)
        self.engine = Engine(model, tokenizer, dtype=ranks.dtype, max_rows=rows)
        self.meter = Meter(ranks, model.flops_per_token())
        self.pad = tokenizer.special("<|assistant_end|>")

    def run(self) -> dict[str, Any]:
        """Train to the end and publish `model`. Returns the figures that the stage reports.

        Raises StageError with Exit.STOPPED after a stop request, when a checkpoint has been saved; with Exit.NONFINITE when the
        loss or the gradient is not finite; and the errors of the saver.
        """
        with StopRequest(self.ctx) as self._stop:
            try:
                self._loop()
            finally:
                self.saver.close()
        return self._results()

    def _loop(self) -> None:
        state, spec = self.state, self.spec
        stopping = self.ranks.any(bool(self._stop))
        self._progress()
        while not stopping and state.step < self.steps:
            if _due(spec.save_every, state.step):
                self._save()
            if state.visited != state.step and _due(spec.eval_every, state.step):
                self._evaluate()
                self.saver.describe(state.step, **self._description())
            stopping = self._step()
        self._save()
        self.saver.finish()  # before the last evaluation, which may fail
        if stopping:
            raise StageError(
                f"stopped on request after step {state.step}; the last checkpoint is of step {self.last_saved}",
                code="stopped",
                exit_code=Exit.STOPPED,
            )
        if state.visited != state.step:
            self._evaluate()
        self._save(final=True)
        self.saver.finish()

    # -- one step --

    def _step(self) -> bool:
        """Sample answers, train on them, report. Returns whether any rank has received a stop request."""
        state, spec, start = self.state, self.spec, time.perf_counter()
        asked = rollout.questions(state.step, spec, len(self.train), self.ranks)
        self.optimizer.zero_grad()
        groups: list[Group] = []
        loss = 0.0
        for index in asked:
            group = rollout.rollout(self.engine, self.tokenizer, self.train, index, spec, self.ctx.spec.seed, state.step)
            if group is not None:
                groups.append(group)
                loss += rollout.backward(self.model, group, spec, 1 / len(asked), self.pad, self.ranks)
        lrm = schedule.linear(state.step, self.steps)
        norm = self.optimizer.step(lrm, rollout.MOMENTUM).item()
        self.engine.refresh()
        rewards, rows = sum(sum(g.rewards) for g in groups), sum(len(g.rewards) for g in groups)
        sampled = sum(sum(map(sum, g.masks)) for g in groups)
        everyone = self.ranks.gather(rewards, rows, sampled, loss, float(bool(self._stop)), self.saver.phase)
        *columns, phases = zip(*everyone, strict=True)
        rewards, rows, sampled, loss, stopping = map(sum, columns)
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self.saver.finish()
            raise self._nonfinite(loss, norm)
        self.saver.settle(phases)
        seconds = time.perf_counter() - start
        state.step += 1
        state.tokens += round(sampled)
        state.train_seconds += seconds
        state.rewards.append(rewards / max(rows, 1))
        self.meter.step(round(sampled), seconds)
        values = {
            "reward": state.rewards[-1],
            "loss": loss / self.ranks.world_size,
            "lrm": lrm,
            "grad_norm": norm,
            "sequence_length": sampled / max(rows, 1),
            "tok_per_s": sampled / seconds,
            "dt_ms": 1000 * seconds,
            "mem_gib": self.meter.mem_gib(),
        }
        self.ctx.events.emit("metric", step=state.step, values=values)
        self._progress()
        return bool(stopping > 0)

    def _evaluate(self) -> None:
        found = rollout.pass_at(self.engine, self.tokenizer, self.test, self.spec, self.ranks, self.ctx.spec.seed)
        step = self.state.step
        self.state.pass_at[str(step)] = found
        self.state.visited = step
        self.ctx.events.emit("metric", step=step, values={"pass_at_1": found[0]})
        values = {f"pass@{k}": value for k, value in enumerate(found, 1)}
        self.ctx.events.emit("eval", name=self.spec.task, step=step, values=values)

    # -- saving and reporting --

    def _save(self, *, final: bool = False) -> None:
        state = self.state
        if state.step == 0 or (state.step == self.last_saved and not final):
            return
        # The step number determines the questions, so there is no loader state.
        self.saver.save(state.step, **self._description(), loader_state={}, final=final)
        self.last_saved = state.step

    def _description(self) -> dict[str, Any]:
        """Metadata, score and loop state of a checkpoint of this step.

        The score is the latest pass@1, negated; it is None while the evaluation of this step is still to come.
        """
        state = self.state
        to_come = state.visited != state.step and (state.step == self.steps or _due(self.spec.eval_every, state.step))
        reached = None if to_come else self._latest()
        return {
            "meta": {"tokenizer_sha256": self.tokenizer_sha256, "pass_at_1": reached},
            "score": None if reached is None else -reached,  # the saver keeps the lowest score
            "loop_state": asdict(state),
        }

    def _latest(self) -> float | None:
        return next(reversed(self.state.pass_at.values()))[0] if self.state.pass_at else None

    def _progress(self) -> None:
        done = self.state.step
        eta_s = round(self.meter.eta_s(self.steps - done), 1)
        self.ctx.events.emit("progress", done=done, total=self.steps, unit="step", eta_s=eta_s)

    def _nonfinite(self, loss: float, norm: float) -> StageError:
        return StageError(
            f"at step {self.state.step} the loss is {loss} and the norm of the gradient is {norm}",
            code="nonfinite",
            hint="lower the learning rates",
            exit_code=Exit.NONFINITE,
        )

    def _results(self) -> dict[str, Any]:
        state = self.state
        evaluations = list(state.pass_at.values())
        window = max(1, min(10, len(state.rewards) // 4))
        return {
            "task": self.spec.task,
            "steps": state.step,
            "tokens": state.tokens,
            "train_seconds": state.train_seconds,
            "first_reward": sum(state.rewards[:window]) / window,
            "last_reward": sum(state.rewards[-window:]) / window,
            "pass_at_1_before": evaluations[0][0],
            "pass_at_1": evaluations[-1][0],
            f"pass_at_{rollout.PASS_AT}_before": evaluations[0][-1],
            f"pass_at_{rollout.PASS_AT}": evaluations[-1][-1],
            "mem_gib": self.meter.mem_gib(),
            "world_size": self.ranks.world_size,
            "device": self.meter.device,
        }


def _due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0
