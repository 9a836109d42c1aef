"""Steps of reinforcement learning in one process, by the functions that the stage itself uses."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.engine.measure import synchronize
from benchmarks.engine.subject import Prompts, Specials, Subject
from benchmarks.result import Measurement, measurement
from nanochat.config.recipe import RlSpec
from nanochat.distributed import Ranks, native_dtype
from nanochat.engine import Engine
from nanochat.optim import Optimizer
from nanochat.rl import rollout
from nanochat.rl.rewards import Judge
from nanochat.rl.rollout import Group
from nanochat.tasks.base import Conversation, Task

if TYPE_CHECKING:
    from benchmarks.rl.__main__ import RlOptions

EAGER_QUESTIONS = 2
FASTER = 10  # than question by question, at least


class Questions(Task):
    """Questions of random tokens, which `Rendered` finds in them."""

    name = "random"

    def __init__(self, prompts: list[list[int]]):
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def conversation(self, index: int) -> Conversation:
        return {"messages": [], "ids": self._prompts[index]}  # type: ignore[typeddict-unknown-key]


class Rendered(Specials):
    """In place of a tokenizer: the ids of a question are given, and nobody reads an answer's text."""

    def render_for_completion(self, conversation: Any) -> list[int]:
        return list(conversation["ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        return ""


@dataclass(frozen=True)
class Step:
    """Seconds of one step, and what it sampled."""

    generating: float  # without judging
    judging: float
    training: float
    tokens: int
    answers: int

    @property
    def seconds(self) -> float:
        return self.generating + self.judging + self.training

    @property
    def tok_per_s(self) -> float:
        return self.tokens / (self.generating + self.judging)


class Bench:
    """The sizes of this run, its model, and its optimizer."""

    def __init__(self, options: RlOptions, *, gpu: bool):
        quick = options.quick
        kind = torch.device("cuda" if gpu else "cpu")
        self.at_a_time, self.length = options.at_a_time, options.length
        self.questions = options.questions or (4 if quick else 16 if gpu else 8)
        self.prompt = options.prompt or (100 if gpu else 48)
        self.steps = options.steps or (1 if quick else 5 if gpu else 2)
        recipe, depth = options.recipe or ("speedrun" if gpu else "tiny"), options.depth or (20 if gpu and not quick else 4)
        self.spec = RlSpec(
            num_samples=options.samples or (4 if quick else 16 if gpu else 8),
            examples_per_step=self.questions,
            max_new_tokens=options.new or (32 if quick else 256 if gpu else 64),
        )
        fast = "bf16" if native_dtype(kind) is torch.bfloat16 else "fp32"
        context = max(2048 if gpu else 256, self.prompt + self.spec.max_new_tokens)
        self.subject = Subject(recipe=recipe, depth=depth, context=context, dtype=fast, device=kind.type)
        self.model = self.subject.trainable()
        self.ranks = Ranks(0, 1, self.model.get_device(), self.subject.torch_dtype)
        self.optimizer = Optimizer(self.model, self.spec.optim, self.ranks, lr_scale=self.spec.init_lr_frac)
        self.prompts = Prompts(self.subject.config.vocab_size)
        # The bound is about one model on a GPU.
        self.must = FASTER if gpu and not quick and depth == 20 and recipe == "speedrun" else None
        self.gpu = gpu

    @property
    def title(self) -> str:
        spec = self.spec
        return (
            f"{self.subject.recipe} d{self.subject.depth} {self.subject.dtype}: {self.questions} questions of {self.prompt} tokens, "
            f"{spec.num_samples} samples of at most {spec.max_new_tokens}"
        )

    def rows(self) -> Iterator[Measurement]:
        together = self._engine(self.questions * self.spec.num_samples)
        ours = self._measured(together, self.spec.num_samples, one_by_one=False)
        del together
        alone = self._engine(self.at_a_time)
        theirs = self._measured(alone, self.at_a_time, one_by_one=True)
        del alone
        name, peer = "rollouts", f"question by question, {self.at_a_time} samples at a time"
        speed = statistics.median(step.tok_per_s for step in ours)
        slow = statistics.median(step.tok_per_s for step in theirs)
        yield measurement(name, speed, "tok/s", "higher", peer, slow, must=self.must)
        if self.gpu:
            slowest = self._engine(
                self.at_a_time, graphs=False
            )  # of all 16 questions it would be 200 s a step, at the same speed
            eager = self._measured(slowest, self.at_a_time, one_by_one=True, steps=1, questions=EAGER_QUESTIONS)
            without = f"{peer}, without CUDA graphs"
            yield measurement(name, speed, "tok/s", "higher", without, eager[0].tok_per_s)
        yield measurement(
            "mean length of an answer", sum(s.tokens for s in ours) / sum(s.answers for s in ours), "tokens", "higher"
        )
        whole = statistics.median(step.seconds for step in ours)
        yield measurement("a step", whole, "s", "lower", peer, statistics.median(step.seconds for step in theirs))
        for part, what in (("generating", "generates"), ("training", "trains"), ("judging", "waits for rewards")):
            share = 100 * statistics.median(getattr(step, part) / step.seconds for step in ours)
            peers = 100 * statistics.median(getattr(step, part) / step.seconds for step in theirs)
            yield measurement(f"share of a step that {what}", share, "%", "lower", question_by_question=round(peers, 3))
        yield measurement("peak memory, cache included", self._peak_gib(), "GiB", "lower")

    def _engine(self, rows: int, *, graphs: bool = True) -> Engine:
        tokenizer: Any = Rendered()
        engine = Engine(self.model, tokenizer, dtype=self.subject.torch_dtype, max_rows=rows, graphs=graphs)
        # A model with random weights hardly ever draws one particular token, so that many tokens end an answer.
        engine._ends = set(range(Specials.count, self.subject.config.vocab_size, self.length))
        engine.warm_up()
        return engine

    def _measured(
        self, engine: Engine, samples: int, *, one_by_one: bool, steps: int | None = None, questions: int | None = None
    ) -> list[Step]:
        """The steps after the first, which compiles what is left to compile."""
        found = [
            self._step(engine, samples, number, one_by_one, questions or self.questions)
            for number in range(1 + (steps or self.steps))
        ]
        return found[1:]

    def _step(self, engine: Engine, samples: int, number: int, one_by_one: bool, questions: int) -> Step:
        task, spec = Questions(self.prompts(questions, self.prompt)), self.spec
        tokenizer: Any = engine.tokenizer
        rewards = itertools.cycle((1.0, 0.0, 0.0))
        judge = Judge("bench", lambda conversation, completion: next(rewards))
        synchronize()
        start = time.perf_counter()
        groups: list[Group] = []
        if one_by_one:
            for index in range(len(task)):
                several = self._question(engine, task, index, samples, number, judge)
                groups.append(
                    Group(*([part for g in several for part in getattr(g, name)] for name in ("ids", "masks", "rewards")))
                )
        else:
            made = rollout.rollouts(engine, tokenizer, task, range(len(task)), spec, judge, number)
            groups = [group for group in made if group is not None]
        synchronize()
        sampled = time.perf_counter()
        self.optimizer.zero_grad()
        positions = spec.device_batch_size * self.model.config.sequence_len
        rollout.backward(self.model, groups, spec, 1 / len(groups), 0, self.ranks, positions=positions)
        self.optimizer.step(1e-3, rollout.MOMENTUM)
        engine.refresh()
        synchronize()
        end = time.perf_counter()
        return Step(
            generating=sampled - start - judge.seconds,
            judging=judge.seconds,
            training=end - sampled,
            tokens=sum(sum(map(sum, group.masks)) for group in groups),
            answers=sum(len(group.ids) for group in groups),
        )

    def _question(self, engine: Engine, task: Task, index: int, samples: int, number: int, judge: Judge) -> list[Group]:
        """The samples of one question, a batch after the other."""
        tokenizer: Any = engine.tokenizer
        found = []
        for first in range(0, self.spec.num_samples, samples):
            batch = self.spec.model_copy(update={"num_samples": min(samples, self.spec.num_samples - first)})
            found += rollout.rollouts(engine, tokenizer, task, [index], batch, judge, number, first)
        return [group for group in found if group is not None]

    def _peak_gib(self) -> float:
        from benchmarks.process import peak_rss_mb

        return torch.cuda.max_memory_allocated() / 2**30 if self.gpu else peak_rss_mb() / 1024
