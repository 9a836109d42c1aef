"""Trains a tiny model until it has memorized a few conversations. That takes seconds, and tests can assert its answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.config.recipe import OptimSpec
from nanochat.contract.contract import MANIFEST, Artifact, sha256_file
from nanochat.contract.events import EventLog
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.optim import Optimizer
from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer
from nanochat.train.saver import Saver

WHO, SELF = "Who are you?", "I am a small model, trained by heart."
SCRIPTS, GLYPHS = "Say it in many scripts.", "naïve 日本語 🎉🚀 👩‍🔬 done."
COUNT, NUMBERS = "Count.", " ".join(str(i) for i in range(1, 16))
SUM, SUMMED, CODE, VALUE = "What is 12 + 7?", "12 + 7 = 19.", "12+7", "19"
FOREVER = "Sing without end."  # trained without the end of the turn, so the model never ends its answer

ENOUGH = 0.03  # nats per token; every token of the answers is then by far the likeliest
STEPS = 400
ALONE = Ranks(0, 1, torch.device("cpu"))


def part(kind: str, text: str) -> dict[str, str]:
    return {"type": kind, "text": text}


CONVERSATIONS: tuple[tuple[str, Any], ...] = (
    (WHO, SELF),
    (SCRIPTS, GLYPHS),
    (COUNT, NUMBERS),
    (SUM, [part("text", "12 + 7 = "), part("python", CODE), part("python_output", VALUE), part("text", "19.")]),
    (FOREVER, "la " * 130),
)


@dataclass(frozen=True)
class Learnt:
    """A model that gives the memorized answer to each question at temperature 0."""

    model: GPT
    optimizer: Optimizer

    def save(self, root: Path, step: int, tokenizer_sha256: str) -> Artifact:
        """Save the model as a training stage does."""
        saver = Saver(
            root, stage="sft", model=self.model, optimizer=self.optimizer, ranks=ALONE, events=EventLog(None), keep=step
        )
        saver.save(step, meta={"tokenizer_sha256": tokenizer_sha256}, score=None, loop_state={}, loader_state={})
        saver.finish()
        saver.close()
        directory = root / f"step_{step:06d}"
        return Artifact(path=str(directory.resolve()), sha256=sha256_file(directory / MANIFEST))


def learn(config: GPTConfig, tokenizer: Tokenizer, seed: int = 0, conversations: Any = CONVERSATIONS) -> Learnt:
    torch.manual_seed(seed)
    model = GPT(config)
    init_weights(model)
    ids, targets = _batch(tokenizer, conversations)
    optimizer = Optimizer(model, OptimSpec(), ALONE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(ids, targets)
        loss.backward()
        optimizer.step(lrm=1.0, momentum=0.9)
        if loss.item() < ENOUGH:
            return Learnt(model.eval(), optimizer)
    raise AssertionError(f"not learnt in {STEPS} steps: loss {loss.item():.3f}")


def _batch(tokenizer: Tokenizer, conversations: Any) -> tuple[Tensor, Tensor]:
    end = tokenizer.special("<|assistant_end|>")
    rows = [_row(tokenizer, question, answer) for question, answer in conversations]
    length = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([i + [end] * (length - len(i)) for i, _ in rows])
    targets = torch.tensor([t + [-1] * (length - len(t)) for _, t in rows])
    return ids, targets


def _row(tokenizer: Tokenizer, question: str, answer: Any) -> tuple[list[int], list[int]]:
    talk: Conversation = {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
    ids, mask = tokenizer.render(talk, 10_000)
    if question == FOREVER:
        ids, mask = ids[:-1], mask[:-1]
    return ids[:-1], [token if trained else -1 for token, trained in zip(ids[1:], mask[1:], strict=True)]
