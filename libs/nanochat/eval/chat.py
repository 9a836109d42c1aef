"""Judge chat models: multiple choice by the logits of the letters, all other tasks by the generated text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import fmean

from nanochat.contract.contract import Exit, StageError
from nanochat.distributed import Ranks, cores
from nanochat.engine import Engine, PromptTooLong, Request, Sampling
from nanochat.engine.scorer import Scorer
from nanochat.eval import estimates
from nanochat.eval.answers import Answers, Example, Part, verdict
from nanochat.eval.halving import Halving
from nanochat.model import GPT
from nanochat.tasks.base import Task
from nanochat.tasks.catalog import TASKS
from nanochat.tokenizer import Tokenizer

# Accuracy of guessing on each task of ChatCORE.
BASELINES = {task.name: task.baseline for task in TASKS if task.in_chatcore}
# nanochat's README had ChatCORE 0.0730 after midtraining and 0.0884 after SFT before it had SpellingBee.
FIVE = {name: guess for name, guess in BASELINES.items() if name != "spellingbee"}
PASS_AT = (1, 2, 4, 8, 16, 32, 64)  # numbers of answers for which pass@k is told, up to as many as there are
JUDGES = 8  # answers that a rank judges at once, if the machine has as many cores for each of its ranks
BATCH = {"cuda": 1024}  # problems whose letters are ranked together
ROWS = 128  # answers that are generated at once

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class ChatResult:
    """`accuracy` over `n` problems, with its standard error; `skipped` of them did not fit the model's context and count as wrong.

    `pass_at` estimates, for k of a generative task's answers to each problem, the share of problems of which at least one is right.
    """

    accuracy: float
    n: int
    skipped: int = 0
    examples: list[Example] = field(default_factory=list)
    pass_at: dict[int, float] = field(default_factory=dict)

    @property
    def stderr(self) -> float:
        return estimates.stderr(self.accuracy, self.n)


@dataclass(frozen=True, slots=True)
class Answering:
    """How answers are generated: `num_samples` of at most `max_new_tokens` tokens for each problem."""

    num_samples: int = 1
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_k: int = 50
    seed: int = 42


GREEDY = Answering()


@dataclass(frozen=True, slots=True)
class _Mine:
    """A task, and which of its problems are this rank's."""

    task: Task
    indices: range


class _Advance:
    """Tells how many problems of all ranks are done, as if the others were as far as this one."""

    def __init__(self, n: int, note: str, world_size: int, progress: Progress | None):
        self._n, self._note, self._world_size, self._progress, self._done = n, note, world_size, progress, 0

    def __call__(self, count: int) -> None:
        self._done += count * self._world_size
        if self._progress:
            self._progress(min(self._done, self._n), self._n, self._note)


class Evaluator:
    """Judges one model. What it needs on a GPU, copies in another type and graphs, is made once for all tasks.

    A categorical problem is right when the correct letter has the highest logit among the problem's letters. A generative problem is right
    when any of its answers is judged right. Ranks share the problems, so every rank must call `evaluate`. A rank that runs out of memory
    goes on with less at once, and `warn` is told.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, ranks: Ranks, warn: Callable[[str], None] | None = None):
        self._tokenizer, self._ranks, self._warn = tokenizer, ranks, warn
        self._letters: dict[str, int] = {}
        self._halving = Halving()

        def engine(share: float) -> Engine:
            return Engine(model, tokenizer, dtype=ranks.dtype, max_rows=max(1, int(ROWS * share)), share=share)

        self._scorer_now = self._halving.made(lambda share: Scorer(model, dtype=ranks.dtype, share=share))
        self._engine_now = self._halving.made(engine)

    def evaluate(
        self,
        tasks: Mapping[str, Task],
        max_problems: int | None = None,
        *,
        batch_size: int = 8,
        answering: Answering = GREEDY,
        progress: Progress | None = None,
    ) -> Iterator[tuple[str, ChatResult | StageError]]:
        """Measure the accuracy on the first `max_problems` of each task: name and result, or why the task cannot be evaluated.

        The problems of all generative tasks are answered together, after the other tasks: what a step costs hardly depends on how many
        answers it adds a token to, and each task alone would end with a few long ones. `batch_size` problems are ranked at a time on a
        CPU. `progress(done, total, note)` counts problems; it assumes that other ranks are as far as this one.
        """
        sizes = {name: min(len(task), max_problems or len(task)) for name, task in tasks.items()}
        shares = {name: range(self._ranks.rank, n, self._ranks.world_size) for name, n in sizes.items()}
        generative = [name for name, task in tasks.items() if task.eval_type == "generative"]
        groups = [[name] for name in tasks if name not in generative] + ([generative] if generative else [])
        for names in groups:
            mine = [_Mine(tasks[name], shares[name]) for name in names]
            total, note = sum(sizes[name] for name in names), ", ".join(names)
            for name, found in zip(names, self._together(mine, total, note, batch_size, answering, progress), strict=True):
                k_max = answering.num_samples if name in generative else 1
                yield name, found if isinstance(found, StageError) else self._result(found, sizes[name], k_max)

    def _result(self, found: Part, n: int, k_max: int) -> ChatResult:
        steps = [k for k in PASS_AT if k < k_max] + [k_max]
        sums = [sum(estimates.pass_at_k(right, k_max, k) for right in found.rights) for k in steps]
        totals = self._ranks.sum(*sums, found.skipped)
        passed = {k: total / n if n else 0.0 for k, total in zip(steps, totals[:-1], strict=True)}
        return ChatResult(passed[k_max], n, int(totals[-1]), found.examples, {} if found.ranked else passed)

    def _together(
        self,
        mine: list[_Mine],
        total: int,
        note: str,
        batch_size: int,
        answering: Answering,
        progress: Progress | None,
    ) -> list[Part | StageError]:
        """This rank's parts of some tasks, once every rank has its own; of a task that failed on any rank an error, on every rank."""

        def work() -> list[Part | Exception]:
            advance = _Advance(total, note, self._ranks.world_size, progress)
            if mine[0].task.eval_type == "categorical":
                return [self._categorical(mine[0].task, mine[0].indices, batch_size, advance)]
            return self._generative(mine, answering, advance)

        parts: list[Part | Exception]
        try:
            parts = self._halving.run(work)
        except Exception as err:  # of a user's task, of a package, of the device
            if isinstance(err, StageError) and err.exit_code == Exit.STOPPED:
                raise
            parts = [err] * len(mine)
        warning = self._halving.agree(self._ranks)
        if warning and self._warn:
            self._warn(warning)
        return [self._agreed(part) for part in parts]

    def _agreed(self, part: Part | Exception) -> Part | StageError:
        failed = self._ranks.any(isinstance(part, Exception))
        if isinstance(part, Part) and not failed:
            return part
        if isinstance(part, StageError):
            return part
        why = f"{type(part).__name__}: {part}" if isinstance(part, Exception) else "it failed in another process"
        error = StageError(why, code="evaluation_failed")
        error.__cause__ = part if isinstance(part, Exception) else None
        return error

    def _generative(self, mine: Sequence[_Mine], how: Answering, advance: _Advance) -> list[Part | Exception]:
        """The part of each task, or what its own code raised.

        The engine answers all problems together. Each has its own seed, so its answers do not depend on the others. Answers are judged in
        threads while it generates: programs run in processes of their own, and one that never ends takes seconds.
        """
        engine, asked = self._engine_now(), dict[Request, tuple[Answers, int]]()
        every = [Answers(one.task) for one in mine]
        for answers, one in zip(every, mine, strict=True):
            try:
                for index in one.indices:
                    sampling = Sampling(temperature=how.temperature, top_k=how.top_k, seed=how.seed + index)
                    prompt = self._tokenizer.render_for_completion(one.task[index])
                    try:
                        request = engine.add(prompt, sampling, max_tokens=how.max_new_tokens, n=how.num_samples)
                        asked[request] = answers, index
                    except PromptTooLong:
                        answers.skipped += 1
                        advance(1)
            except Exception as err:  # of the task's own code; what is asked already is answered in vain
                answers.problem = err
        with ThreadPoolExecutor(max(1, min(JUDGES, cores() // self._ranks.world_size))) as judges:
            try:
                for request in engine.finished():
                    answers, index = asked[request]
                    answers.add(index, [self._tokenizer.decode(row.made) for row in request.rows], judges)
                    advance(1)
                return [answers.part() for answers in every]
            finally:
                judges.shutdown(cancel_futures=True)

    def _categorical(self, task: Task, indices: range, batch_size: int, advance: _Advance) -> Part:
        rights: list[int] = []
        skipped, scorer = 0, self._scorer_now()
        size = max(1, int(BATCH.get(self._ranks.device.type, batch_size) * self._halving.share))
        for start in range(0, len(indices), size):
            conversations = [task[i] for i in indices[start : start + size]]
            prompts = [self._tokenizer.render_for_completion(conversation) for conversation in conversations]
            asked = [(c, p) for c, p in zip(conversations, prompts, strict=True) if len(p) <= scorer.limit]
            skipped += len(conversations) - len(asked)
            letters = sorted({letter for conversation, _ in asked for letter in conversation["letters"]})
            logits = scorer.next_logits([prompt for _, prompt in asked], [self._token(letter) for letter in letters])
            for (conversation, _), row in zip(asked, logits, strict=True):
                choices = conversation["letters"]
                guess = choices[int(row[[letters.index(letter) for letter in choices]].argmax())]
                rights.append(int(verdict(task, conversation, guess)))
            advance(len(conversations))
        return Part(rights, skipped, ranked=True)

    def _token(self, letter: str) -> int:
        if letter not in self._letters:
            tokens = self._tokenizer.encode(letter)
            if len(tokens) != 1:
                raise StageError(
                    f"the answer letter {letter!r} has {len(tokens)} tokens in this tokenizer; it must have one",
                    code="letter_tokens",
                    hint="train a tokenizer that has single letters as tokens",
                )
            self._letters[letter] = tokens[0]
        return self._letters[letter]


def table(results: Mapping[str, ChatResult]) -> str:
    """The tasks as CSV, with ChatCORE as the last row if it can be computed."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    several = sorted({k for result in results.values() for k in result.pass_at if k > 1})
    writer.writerow(("Task", "Accuracy", "Standard error", "Problems", "Skipped", *(f"pass@{k}" for k in (1, *several))))
    for name, result in results.items():
        passed = [f"{result.pass_at[k]:.6f}" if k in result.pass_at else "" for k in (1, *several)]
        writer.writerow((name, f"{result.accuracy:.6f}", f"{result.stderr:.6f}", result.n, result.skipped, *passed))
    core = chatcore({name: result.accuracy for name, result in results.items()})
    if core is not None:
        writer.writerow(("ChatCORE", f"{core:.6f}", "", "", "", *[""] * (1 + len(several))))
    return out.getvalue()


def chatcore(accuracies: dict[str, float], baselines: Mapping[str, float] = BASELINES) -> float | None:
    """The mean of (accuracy - baseline) / (1 - baseline) over the tasks of ChatCORE; None unless all of them ran."""
    if not baselines.keys() <= accuracies.keys():
        return None
    return fmean((accuracies[name] - guess) / (1 - guess) for name, guess in baselines.items())
