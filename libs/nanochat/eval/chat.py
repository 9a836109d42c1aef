"""Judge chat models: multiple choice by the logits of the letters, all other tasks by the generated text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TypedDict

import torch

from nanochat.contract.contract import StageError
from nanochat.distributed import Ranks
from nanochat.engine import Engine, PromptTooLong, Request, Sampling
from nanochat.model import GPT
from nanochat.model.loss import softcap
from nanochat.tasks.base import Conversation, Task
from nanochat.tasks.catalog import TASKS
from nanochat.tokenizer import Tokenizer

# Accuracy of guessing on each task of ChatCORE.
BASELINES = {task.name: task.baseline for task in TASKS if task.in_chatcore}
# nanochat's README had ChatCORE 0.0730 after midtraining and 0.0884 after SFT before it had SpellingBee.
FIVE = {name: guess for name, guess in BASELINES.items() if name != "spellingbee"}
EXAMPLES = 4  # problems of a generative task that are kept to be shown

Progress = Callable[[int, int], None]


class Example(TypedDict):
    """One problem: the last user message, the first completion, and whether the problem counted as right."""

    prompt: str
    completion: str
    right: bool


@dataclass(frozen=True, slots=True)
class ChatResult:
    """`accuracy` over `n` problems; `skipped` of them did not fit the model's context and count as wrong."""

    accuracy: float
    n: int
    skipped: int = 0
    examples: list[Example] = field(default_factory=list)


def evaluate(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    ranks: Ranks,
    *,
    max_problems: int | None = None,
    batch_size: int = 8,
    num_samples: int = 1,
    max_new_tokens: int = 512,
    temperature: float = 0.0,
    top_k: int = 50,
    seed: int = 42,
    progress: Progress | None = None,
) -> ChatResult:
    """Measure the accuracy of a chat model on the first `max_problems` of a task.

    Ranks share the problems, so every rank must call this. A categorical problem is right when the correct letter has the
    highest logit among the problem's letters. A generative problem is right when any of `num_samples` completions is judged
    right. `progress(done, total)` counts problems; it assumes that other ranks are as far as this one.
    """
    n = min(len(task), max_problems or len(task))
    mine = range(ranks.rank, n, ranks.world_size)
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count * ranks.world_size
        if progress:
            progress(min(done, n), n)

    examples: list[Example] = []
    if task.eval_type == "categorical":
        right, skipped = _categorical(model, tokenizer, task, mine, ranks, batch_size, advance)
    else:
        how = Sampling(temperature=temperature, top_k=top_k, seed=seed)
        engine = Engine(model, tokenizer, dtype=ranks.dtype)
        right, skipped, examples = _generative(engine, task, mine, how, num_samples, max_new_tokens, advance)
    all_right, all_skipped = ranks.sum(right, skipped)
    return ChatResult(all_right / n if n else 0.0, n, int(all_skipped), examples)


def chatcore(accuracies: dict[str, float], baselines: Mapping[str, float] = BASELINES) -> float | None:
    """The mean of (accuracy - baseline) / (1 - baseline) over the tasks of ChatCORE; None unless all of them ran."""
    if not baselines.keys() <= accuracies.keys():
        return None
    return fmean((accuracies[name] - guess) / (1 - guess) for name, guess in baselines.items())


def _generative(
    engine: Engine,
    task: Task,
    indices: range,
    how: Sampling,
    num_samples: int,
    max_new_tokens: int,
    advance: Callable[[int], None],
) -> tuple[int, int, list[Example]]:
    """Return how many of the problems are right, how many were too long for the model's context, and the first few as examples.

    The engine answers all problems together. Each has its own seed, so its answers do not depend on the others.
    """
    tokenizer, asked = engine.tokenizer, dict[Request, int]()
    right = skipped = 0
    for index in indices:
        prompt = tokenizer.render_for_completion(task[index])
        try:
            request = engine.add(prompt, replace(how, seed=how.seed + index), max_tokens=max_new_tokens, n=num_samples)
            asked[request] = index
        except PromptTooLong:
            skipped += 1
            advance(1)
    examples: dict[int, Example] = {}
    shown = set(list(asked.values())[:EXAMPLES])
    for request in engine.finished():
        index = asked[request]
        conversation, texts = task[index], [tokenizer.decode(row.made) for row in request.rows]
        passed = any(task.evaluate(conversation, text) for text in texts)
        right += passed
        if index in shown:
            examples[index] = {"prompt": _question(conversation), "completion": texts[0], "right": passed}
        advance(1)
    return right, skipped, [examples[index] for index in sorted(examples)]


@torch.no_grad()
def _categorical(
    model: GPT,
    tokenizer: Tokenizer,
    task: Task,
    indices: range,
    ranks: Ranks,
    batch_size: int,
    advance: Callable[[int], None],
) -> tuple[int, int]:
    """Return how many of the problems are right, and how many were too long for the model's context."""
    device, limit = ranks.device, model.rotary.length
    letters: dict[str, int] = {}
    right = skipped = 0
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        asked = [(c, p) for c in (task[i] for i in batch) if len(p := tokenizer.render_for_completion(c)) <= limit]
        skipped += len(batch) - len(asked)
        if asked:
            length = max(len(prompt) for _, prompt in asked)
            ids = torch.tensor([prompt + [tokenizer.bos] * (length - len(prompt)) for _, prompt in asked], device=device)
            last = torch.tensor([len(prompt) - 1 for _, prompt in asked], device=device)
            with ranks.autocast():
                states = model.hidden(ids)[torch.arange(len(asked), device=device), last]
                logits = softcap(model.lm_head(states)).cpu()
            for (conversation, _), row in zip(asked, logits, strict=True):
                choices = conversation["letters"]
                tokens = [_letter_token(letters, tokenizer, letter) for letter in choices]
                guess = choices[int(row[tokens].argmax())]
                right += task.evaluate(conversation, guess)
        advance(len(batch))
    return right, skipped


def _letter_token(known: dict[str, int], tokenizer: Tokenizer, letter: str) -> int:
    if letter not in known:
        tokens = tokenizer.encode(letter)
        if len(tokens) != 1:
            raise StageError(
                f"the answer letter {letter!r} has {len(tokens)} tokens in this tokenizer; it must have one",
                code="letter_tokens",
                hint="train a tokenizer that has single letters as tokens",
            )
        known[letter] = tokens[0]
    return known[letter]


def _question(conversation: Conversation) -> str:
    users = [m["content"] for m in conversation["messages"] if m["role"] == "user"]
    return users[-1] if users and isinstance(users[-1], str) else ""
