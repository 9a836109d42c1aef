"""Policy gradient on a task whose answers can be judged: REINFORCE, with the mean reward of a group as baseline.

This is GRPO (Shao et al. 2024) reduced to the strictly on-policy case: no reference model, no probability ratio, no clipping.
The advantage is the reward minus the mean, not divided by the standard deviation (Liu et al. 2025), and every sampled token
has the same weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from nanochat.config.recipe import RlSpec
from nanochat.data import packing
from nanochat.distributed import Ranks
from nanochat.engine import Engine, PromptTooLong, Request, Sampling
from nanochat.eval.estimates import pass_at_k
from nanochat.model import GPT
from nanochat.rl.rewards import Judge
from nanochat.tasks.base import Task

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer

MOMENTUM = 0.95  # of Muon; without a ramp, because the policy is trained already
PASS_AT = 8  # completions per question in an evaluation


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one question, each with its prompt, and their rewards.

    The masks are 1 for tokens that the policy sampled, 0 for the prompt and for the calculator's answers.
    """

    ids: list[list[int]]
    masks: list[list[int]]
    rewards: list[float]

    @property
    def prompt_length(self) -> int:
        return next((place for place, chosen in enumerate(self.masks[0]) if chosen), len(self.masks[0]))

    @property
    def advantages(self) -> list[float]:
        mean = sum(self.rewards) / max(len(self.rewards), 1)
        return [reward - mean for reward in self.rewards]


def seed_of(*parts: int | str) -> int:
    """Derive a 63-bit seed from numbers and names. Unlike `hash`, it is the same in every process and release of Python."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def questions(step: int, spec: RlSpec, size: int, ranks: Ranks) -> list[int]:
    """Return the indices of this rank's questions at a step, out of `size` questions.

    All ranks together take the next `examples_per_step` questions in order and start over at the end. So the questions of a
    step do not depend on the number of ranks.
    """
    first = step * spec.examples_per_step
    return [(first + i) % size for i in range(ranks.rank, spec.examples_per_step, ranks.world_size)]


def rollouts(
    engine: Engine, tokenizer: Tokenizer, task: Task, indices: Sequence[int], spec: RlSpec, judge: Judge, *seed: int | str
) -> list[Group | None]:
    """Sample `num_samples` completions of each question, and judge them. The groups are in the order of `indices`.

    The engine generates all of them together, and a question is judged while the others are still being answered. None stands for
    a question that does not fit into the model's context. Each question has its own seed, so its completions do not depend on
    the others. A completion that cannot be judged is left out of its group.
    """
    asked: dict[Request, int] = {}
    found: dict[int, Group] = {}
    for place, index in enumerate(indices):
        prompt = tokenizer.render_for_completion(task[index])
        how = Sampling(temperature=spec.temperature, top_k=spec.top_k, seed=seed_of(*seed, index))
        try:
            asked[engine.add(prompt, how, max_tokens=spec.max_new_tokens, n=spec.num_samples)] = place
        except PromptTooLong:
            continue
    for request in engine.finished():
        place, prompt = asked[request], request.prompt
        conversation, group = task[indices[place]], Group([], [], [])
        for row in request.rows:
            reward = judge(conversation, tokenizer.decode(row.made))
            if reward is not None:
                group.ids.append([*prompt, *row.made])
                group.masks.append([0] * len(prompt) + row.masks)
                group.rewards.append(reward)
        found[place] = group
    return [found.get(place) for place in range(len(indices))]


def backward(
    model: GPT, groups: Sequence[Group], spec: RlSpec, share: float, pad: int, ranks: Ranks, *, positions: int
) -> float:
    """Add the gradient of these questions' losses times `share`, and return that product. `share` is 1 / (the rank's questions).

    The loss of `device_batch_size` answers to a question is -sum(log p x advantage) / (sampled tokens), and that of the question is the
    mean of theirs. Which answers go through the model together does not matter: it takes answers of similar lengths to all questions,
    at most `positions` positions at a time.
    """
    total = torch.zeros((), device=ranks.device)

    def shape(row: _Row) -> tuple[int, int]:
        return 1, packing.round_up(len(row.ids) - 1, ranks.row_multiple)

    for rows in packing.by_length(_weighted(groups, spec, share), shape, positions):
        inputs, targets = packing.pad_rows([(row.ids, row.mask) for row in rows], pad, multiple=ranks.row_multiple)
        factors = torch.tensor([row.factor for row in rows], device=ranks.device)
        with ranks.autocast():
            loss = model(inputs.to(ranks.device), targets.to(ranks.device), reduction="sum", factors=factors)
        loss.backward()
        total += loss.detach()
    return total.item()


class _Row(NamedTuple):
    ids: list[int]
    mask: list[int]
    factor: float  # of -log p of each of its tokens


def _weighted(groups: Sequence[Group], spec: RlSpec, share: float) -> Iterator[_Row]:
    """The answers that have a gradient: none of a question whose answers are all right or all wrong."""
    for group in groups:
        size, advantages = spec.device_batch_size, group.advantages
        parts = range(0, len(group.ids), size)
        for first in parts:
            sampled = max(1, sum(map(sum, group.masks[first : first + size])))
            for row in range(first, min(first + size, len(group.ids))):
                if advantages[row]:
                    yield _Row(group.ids[row], group.masks[row], advantages[row] * share / (sampled * len(parts)))


def pass_at(
    engine: Engine, tokenizer: Tokenizer, task: Task, spec: RlSpec, ranks: Ranks, seed: int, k: int = PASS_AT
) -> list[float]:
    """Estimate pass@1 to pass@k on the first `eval_examples` questions, from k completions each at the training temperature.

    A question that does not fit counts as wrong. Every rank must call this.
    """
    n = min(len(task), spec.eval_examples)
    mine = range(ranks.rank, n, ranks.world_size)
    sums = [0.0] * k
    right = Judge("correct", lambda conversation, completion: float(task.evaluate(conversation, completion)))
    for group in rollouts(engine, tokenizer, task, mine, spec.model_copy(update={"num_samples": k}), right, seed, "eval"):
        correct = int(sum(group.rewards)) if group else 0
        for size in range(1, k + 1):
            sums[size - 1] += pass_at_k(correct, k, size)
    return [total / n for total in ranks.sum(*sums)]
