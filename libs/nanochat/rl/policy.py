"""The gradients of a step of reinforcement learning, for the training loop: sample answers, judge them, learn from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nanochat.config.recipe import RlSpec
from nanochat.contract.contract import Exit, StageContext
from nanochat.data.packing import pad_rows
from nanochat.distributed import Ranks
from nanochat.engine import Engine
from nanochat.model import GPT
from nanochat.planning import memory
from nanochat.rl import rollout
from nanochat.rl.rewards import Judge, Reward
from nanochat.rl.rollout import Group
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer
from nanochat.train.work import Gradients, Impossible, Values

GRADIENT_AND_MOMENT = 8  # bytes per parameter
LEAST_ROWS, MOST_ROWS = 64, 512  # answers that the engine generates at once: a step's, and many questions of an evaluation


@dataclass(frozen=True, slots=True)
class Subject:
    """What learns: the policy, and the model as it was at the start."""

    model: GPT
    start: GPT
    tokenizer: Tokenizer


class Policy:
    """A source of gradients (`train.work.Work`) that generates its own data with the engine.

    `state` holds the mean reward of each step, how many answers the reward function has failed to judge, and what the stage adds.
    """

    progress = 0.0

    def __init__(
        self, ctx: StageContext, ranks: Ranks, spec: RlSpec, subject: Subject, task: Task, reward: Reward, state: dict[str, Any]
    ):
        self._ctx, self._ranks, self._spec, self._task, self._reward = ctx, ranks, spec, task, reward
        self._model, self._start, self._tokenizer = subject.model, subject.start, subject.tokenizer
        answers = spec.examples_per_step // ranks.world_size * spec.num_samples
        rows = min(max(answers, LEAST_ROWS), MOST_ROWS)
        self.engine = Engine(self._model, self._tokenizer, dtype=ranks.dtype, max_rows=rows)
        self._positions = memory.positions(self._model.config, spec.device_batch_size, _left_gib(self._model))
        self.state: dict[str, Any] = {"rewards": [], "failed": 0, **state}
        self.waited = 0.0

    def gradients(self, step: int) -> Gradients:
        """Raises Impossible when the reward function has failed for every answer of every rank."""
        self.engine.refresh()
        start = time.perf_counter()
        spec, judge = self._spec, Judge(self._spec.reward, self._reward)
        asked = rollout.questions(step, spec, len(self._task), self._ranks)
        made = rollout.rollouts(self.engine, self._tokenizer, self._task, asked, spec, judge, self._ctx.spec.seed, step)
        sampled = time.perf_counter()
        self._settle(step, judge)
        judged = time.perf_counter()
        self.waited += judge.seconds + judged - sampled  # for rewards, and for the slowest rank
        groups = [group for group in made if group is not None]
        pad = self._tokenizer.special("<|assistant_end|>")
        loss = rollout.backward(self._model, groups, spec, 1 / len(asked), pad, self._ranks, positions=self._positions)
        tokens = sum(sum(map(sum, group.masks)) for group in groups)
        if step == 0 or (spec.eval_every > 0 and step % spec.eval_every == 0):
            self._show(step, groups)
        sums = {
            "earned": sum(sum(group.rewards) for group in groups),
            "answers": float(sum(len(group.rewards) for group in groups)),
            "tokens": float(tokens),
            "failed": float(judge.failed),
            "sampling_s": sampled - start - judge.seconds,
            "step_s": time.perf_counter() - start,
            **self._distance(groups, pad),
        }
        return Gradients(torch.tensor(loss), tokens, sums=sums)

    def evaluate(self, test: Task, step: int) -> list[float]:
        """pass@1, pass@2, … on the first questions of `test`. Every rank must call this."""
        self.engine.refresh()
        found = rollout.pass_at(self.engine, self._tokenizer, test, self._spec, self._ranks, self._ctx.spec.seed)
        values = {f"pass@{k}": value for k, value in enumerate(found, 1)}
        self._ctx.events.emit("eval", name=self._spec.task, step=step, values=values)
        return found

    def figures(self, sums: Values) -> dict[str, float | None]:
        answers, measured = max(sums["answers"], 1.0), max(sums["measured"], 1.0)
        self.state = {
            **self.state,
            "rewards": [*self.state["rewards"], sums["earned"] / answers],
            "failed": self.state["failed"] + round(sums["failed"]),
        }
        return {
            "reward": self.state["rewards"][-1],
            "sequence_length": sums["tokens"] / answers,
            "entropy": sums["surprise"] / measured,
            "kl": sums["kl"] / measured,
            "sampling_pct": 100 * sums["sampling_s"] / sums["step_s"],
            "rollout_tok_per_s": sums["tokens"] * self._ranks.world_size / max(sums["sampling_s"], 1e-9),
            "unjudged": sums["failed"],
            "mfu": None,  # counts only training
        }

    def totals(self) -> Values:
        return {}

    def close(self) -> None:
        pass

    def _settle(self, step: int, judge: Judge) -> None:
        """Report answers that could not be judged. Raises Impossible when there are no others, on any rank."""
        judged, failed = self._ranks.sum(judge.judged, judge.failed)
        if not failed:
            return
        why = judge.why or "the error occurred in another process"
        message = f"the reward function {judge.name} failed for {failed:.0f} of {judged:.0f} answers at step {step}: {why}"
        if failed == judged:
            raise Impossible(
                message, code="reward_failed", hint="mend the reward function, then retry this stage", exit_code=Exit.FAILED
            )
        if not self.state["failed"] or step % 10 == 0:
            self._ctx.events.emit("warning", code="reward_failed", message=f"{message}; training goes on without these answers")

    def _show(self, step: int, groups: Sequence[Group]) -> None:
        """Emit the best and the worst answer to the first question."""
        if not groups or not groups[0].rewards:
            return
        group = groups[0]
        order = sorted(range(len(group.rewards)), key=lambda row: -group.rewards[row])
        for row in dict.fromkeys((order[0], order[-1])):
            length = group.prompt_length
            prompt, text = (self._tokenizer.decode(ids) for ids in (group.ids[row][:length], group.ids[row][length:]))
            self._ctx.events.emit("sample", step=step, prompt=prompt, text=text, reward=group.rewards[row])

    @torch.no_grad()
    def _distance(self, groups: Sequence[Group], pad: int) -> Values:
        """Sums over the sampled tokens of one question: their surprise -log p, whose mean estimates the entropy, and the divergence
        from the model at the start by the estimator r - 1 - log r, where r is its probability divided by the policy's (Schulman 2020).
        """
        surprise = kl = measured = 0.0
        for group in [group for group in groups if group.ids][:1]:
            answers = list(zip(group.ids, group.masks, strict=True))
            for first in range(0, len(answers), self._spec.device_batch_size):
                rows = answers[first : first + self._spec.device_batch_size]
                inputs, targets = (t.to(self._ranks.device) for t in pad_rows(rows, pad, multiple=self._ranks.row_multiple))
                with self._ranks.autocast():
                    losses = self._model(inputs, targets, reduction="none")
                    before = self._start(inputs, targets, reduction="none")
                log_ratio = losses - before  # 0 where a target does not count
                surprise += losses.sum().item()
                kl += (log_ratio.exp() - 1 - log_ratio).sum().item()
                measured += (targets >= 0).sum().item()
        return {"surprise": surprise, "kl": kl, "measured": measured}


def _left_gib(model: GPT) -> float | None:
    """GiB of the GPU that are free now, without those of the gradients and moments that the first step adds. None on other devices."""
    device = model.get_device()
    if device.type != "cuda":
        return None
    return (torch.cuda.mem_get_info(device)[0] - GRADIENT_AND_MOMENT * model.num_params()) / memory.GIB
