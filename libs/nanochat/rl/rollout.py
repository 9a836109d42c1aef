"""Reinforcement learning on a task with a right answer: REINFORCE with the group's mean as baseline.

What GRPO (Shao et al. 2024) leaves when it is strictly on-policy: no reference model, no ratio, no clip; the advantage is
reward minus mean, not divided by the deviation (Liu et al. 2025), and every sampled token weighs the same.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanochat.config.recipe import RlSpec
from nanochat.distributed import Ranks
from nanochat.engine import Engine, PromptTooLong
from nanochat.model import GPT
from nanochat.tasks.base import Task
from nanochat.tokenizer import Tokenizer

MOMENTUM = 0.95  # Muon's; no ramp, the policy starts trained
PASS_AT = 8  # completions of each question in an evaluation


@dataclass(frozen=True, slots=True)
class Group:
    """The completions of one question. masks: 1 where the policy chose the token, 0 for the prompt and the tool's answers."""

    ids: list[list[int]]
    masks: list[list[int]]
    rewards: list[float]

    @property
    def advantages(self) -> list[float]:
        mean = sum(self.rewards) / len(self.rewards)
        return [reward - mean for reward in self.rewards]


def seed_of(*parts: int | str) -> int:
    """A 63-bit seed from numbers and names, the same in every process and every release of Python (`hash` is neither)."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def questions(step: int, spec: RlSpec, size: int, ranks: Ranks) -> list[int]:
    """This rank's questions at a step. All ranks' together are the next `examples_per_step` in order, round and round, so
    which questions a step sees does not depend on the number of ranks."""
    first = step * spec.examples_per_step
    return [(first + i) % size for i in range(ranks.rank, spec.examples_per_step, ranks.world_size)]


def rollout(engine: Engine, tokenizer: Tokenizer, task: Task, index: int, spec: RlSpec, *seed: int | str) -> Group | None:
    """`num_samples` completions of question `index` and their rewards, 1 when judged right; None when it does not fit."""
    conversation = task[index]
    prompt = tokenizer.render_for_completion(conversation)
    group = Group([], [], [])
    for first in range(0, spec.num_samples, spec.device_batch_size):
        try:
            completions, masks = engine.generate_batch(
                prompt,
                num_samples=min(spec.device_batch_size, spec.num_samples - first),
                max_tokens=spec.max_new_tokens,
                temperature=spec.temperature,
                top_k=spec.top_k,
                seed=seed_of(*seed, index, first),
            )
        except PromptTooLong:
            return None
        for completion, mask in zip(completions, masks, strict=True):
            group.ids.append([*prompt, *completion])
            group.masks.append([0] * len(prompt) + mask)
            group.rewards.append(float(task.evaluate(conversation, tokenizer.decode(completion))))
    return group


def backward(model: GPT, group: Group, spec: RlSpec, share: float, pad: int, ranks: Ranks) -> float:
    """Add the gradient of this question's loss, times `share` (one over the rank's questions); returns that loss.

    The loss of a pass of `device_batch_size` rows is -sum(log p x advantage) / sampled tokens; passes count alike.
    """
    passes = range(0, len(group.ids), spec.device_batch_size)
    total = 0.0
    for first in passes:
        rows = slice(first, first + spec.device_batch_size)
        advantages = group.advantages[rows]
        if not any(advantages):
            continue  # all right or all wrong: nothing to learn from, and no need to compute a gradient of 0
        inputs, targets = padded(group.ids[rows], group.masks[rows], pad)
        targets = targets.to(ranks.device)
        with ranks.autocast():
            losses = model(inputs.to(ranks.device), targets, reduction="none")  # (B, T): -log p, 0 where masked
        sampled = (targets >= 0).sum().clamp(min=1)
        weights = torch.tensor(advantages, device=ranks.device)[:, None]
        loss = (losses * weights).sum() / sampled * (share / len(passes))
        loss.backward()
        total += loss.item()
    return total


def padded(ids: Sequence[Sequence[int]], masks: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """inputs and targets, both (B, T), padded on the right; targets are -1 except where the mask is 1."""
    length = max(map(len, ids))
    tokens = torch.tensor([[*row, *[pad] * (length - len(row))] for row in ids])
    chosen = torch.tensor([[*row, *[0] * (length - len(row))] for row in masks])
    return tokens[:, :-1], tokens[:, 1:].masked_fill(chosen[:, 1:] == 0, -1)


def pass_at(
    engine: Engine, tokenizer: Tokenizer, task: Task, spec: RlSpec, ranks: Ranks, seed: int, k: int = PASS_AT
) -> list[float]:
    """pass@1 to pass@k on the first `eval_examples` questions, by the unbiased estimator of Chen et al. 2021 over k
    completions of each at the training temperature. Every rank must call it."""
    n = min(len(task), spec.eval_examples)
    drawn = spec.model_copy(update={"num_samples": k, "device_batch_size": k})
    sums = [0.0] * k
    for index in range(ranks.rank, n, ranks.world_size):
        group = rollout(engine, tokenizer, task, index, drawn, seed, "eval")
        right = int(sum(group.rewards)) if group else 0
        for size in range(1, k + 1):
            sums[size - 1] += 1 - math.comb(k - right, size) / math.comb(k, size)
    return [total / n for total in ranks.sum(*sums)]
