"""The parts of `make bench-eval`: each yields its rows as soon as they are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.cards import cards, device
from benchmarks.engine.measure import synchronize
from benchmarks.engine.subject import Specials, Subject
from benchmarks.eval import peer, workload
from benchmarks.eval.workload import ChatTask, CoreTask
from benchmarks.result import Measurement, measurement
from nanochat.distributed import native_dtype
from nanochat.engine import Engine, Sampling
from nanochat.engine.scorer import Scorer

MUST, AIM = 2.0, 5.0  # times as fast as one item at a time
LOOP = "one at a time"
ANSWERS = {"cuda": 6, "cpu": 2}  # problems of a generative task that the loop takes, at most
# By how much the mean loss of a span may differ from the plain model's: the order of roundings is another one.
GAP = {"bf16": 0.1, "fp32": 0.001}
NANOCHAT = {"CORE": 8 * 222, "chat_eval": 8 * 469}  # GPU-seconds of d20 on eight H100s, from its public report
LOOP_TOKENS = 64  # of an answer that the loop generates, at 30 tokens/s; its time is scaled to the whole answer
CHUNK = 1024  # items that are scored together, as in `nanochat.eval.core`


class Bench:
    """The sizes of this run, the model and the examples."""

    def __init__(self, options: Any):
        self.gpu, quick = bool(cards()), options.quick
        self.kind = "cuda" if self.gpu else "cpu"
        fast = "bf16" if native_dtype(torch.device(self.kind)) is torch.bfloat16 else "fp32"
        self.subject = Subject(
            recipe=options.recipe or ("speedrun" if self.gpu else "tiny"),
            depth=options.depth or (20 if self.gpu and not quick else 4),
            context=2048 if self.gpu else 512,
            dtype=options.dtype or fast,
            device=self.kind,
        )
        self.share = options.share or (0.0005 if quick else 1.0 if self.gpu else 0.004)
        self.peer_items = options.peer_items or (1 if quick else 48 if self.gpu else 8)
        self.least = 2 if quick else 64 if self.gpu else 16
        self.answers = 1 if quick else ANSWERS[self.kind]
        self.unit = "s" if self.gpu else "CPU-s"
        self.model = self.subject.build()
        self.limit, self.context = self.model.rotary.length, self.subject.context
        self.data = options.data
        self.seconds: dict[str, tuple[float, float]] = {}  # ours and the loop's, by part
        self.beside_nanochat = self.gpu and not quick and "h100" in device() and self.subject.depth == 20
        self._examples: tuple[list[CoreTask], list[ChatTask]] | None = None
        self.encoding_s: float | None = None  # of the CORE examples, where they are text

    @property
    def title(self) -> str:
        what = f"examples of {self.data}" if self.data else "random examples of the real sizes"
        return f"{self.subject.recipe} d{self.subject.depth} {self.subject.dtype} on {device()}: {what}, {self.share:.2%}"

    @property
    def examples(self) -> tuple[list[CoreTask], list[ChatTask]]:
        if self._examples is None:
            if self.data is None:
                vocab = self.subject.config.vocab_size
                self._examples = workload.generated(self.share, self.least, vocab, self.limit, self.context)
            else:
                from benchmarks.eval import real  # reads yaml, parquet and text, which the rest does without

                encoder = real.tokenizer(self.data, self.subject.config.vocab_size)
                core, self.encoding_s = real.core(self.data, encoder, self.share, self.least, self.limit)
                self._examples = core, real.chat(self.data, encoder, self.share, self.least, self.context)
        return self._examples


def core(bench: Bench) -> Iterator[Measurement]:
    """Each task, then all of them."""
    tasks, _ = bench.examples
    if bench.encoding_s is not None:
        done = sum(len(task.items) for task in tasks)
        yield measurement(f"tokens of {done:,} CORE examples", bench.encoding_s, "s", "lower")
    start = time.perf_counter()
    scorer = Scorer(bench.model, dtype=bench.subject.torch_dtype)
    for task in tasks[:2] if bench.gpu else []:  # compiles the kernels and captures the graphs
        scorer.spans(task.items[:CHUNK])
        peer.score(bench.model, task.items[0])
    if bench.gpu:
        synchronize()
        yield measurement("kernels and graphs for CORE", time.perf_counter() - start, "s", "lower")
    ours = loop = gap = 0.0
    for task in tasks:
        groups, step = task.items, max(1, len(task.items) // bench.peer_items)
        scores: list[Any] = []
        taken = timed(lambda: [scores.extend(scorer.spans(groups[i : i + CHUNK])) for i in range(0, len(groups), CHUNK)])  # noqa: B023
        few = groups[::step][: bench.peer_items]
        theirs: list[Any] = []
        slow = timed(lambda: theirs.extend(peer.score(bench.model, item) for item in few))  # noqa: B023
        taken, slow = taken / len(groups) * task.rows, slow / len(few) * task.rows
        ours, loop = ours + taken, loop + slow
        for (means, _), scored in zip(theirs, scores[::step], strict=False):
            gap = max([gap, *(abs(a - b) for a, (b, _) in zip(means, scored, strict=True))])
        shown = f"CORE, {task.label}: {task.rows:,} examples"
        yield measurement(shown, taken, bench.unit, "lower", LOOP, slow, measured=len(groups), loop_measured=len(few))
    yield from total(bench, "CORE", f"CORE, all {sum(task.rows for task in tasks):,} examples", ours, loop)
    yield measurement("CORE: largest difference of a span's mean loss", gap, "nats", "lower", must=GAP[bench.subject.dtype])


def chat(bench: Bench) -> Iterator[Measurement]:
    """Each task, then all of them."""
    _, tasks = bench.examples
    scorer = Scorer(bench.model, dtype=bench.subject.torch_dtype)
    tokenizer: Any = Specials()
    engine = Engine(bench.model, tokenizer, dtype=bench.subject.torch_dtype)
    letters = list(range(workload.FIRST_TOKEN, workload.FIRST_TOKEN + 4))
    if bench.gpu:
        start = time.perf_counter()
        engine.warm_up()
        scorer.next_logits(tasks[0].prompts[:CHUNK], letters)
        peer.answer(bench.model, tasks[-1].prompts[0], 8)
        synchronize()
        yield measurement("kernels and graphs for the chat tasks", time.perf_counter() - start, "s", "lower")
    ours = loop = 0.0
    for task in tasks:
        if task.answers is None:
            few = task.prompts[: bench.peer_items]
            taken = timed(lambda: _choose(scorer, task.prompts, letters))  # noqa: B023
            slow = timed(lambda: [peer.choose(bench.model, prompt, letters) for prompt in few])  # noqa: B023
        else:
            few = task.prompts[: min(bench.peer_items, bench.answers)]
            taken = timed(lambda: _answer(engine, task))  # noqa: B023
            pairs = [(prompt, min(tokens, LOOP_TOKENS)) for prompt, tokens in zip(few, task.answers, strict=False)]
            slow = timed(lambda: [peer.answer(bench.model, prompt, tokens) for prompt, tokens in pairs])  # noqa: B023
            slow *= sum(task.answers) / len(task.answers) / (sum(tokens for _, tokens in pairs) / len(pairs))
        taken, slow = taken / len(task.prompts) * task.rows, slow / len(few) * task.rows
        ours, loop = ours + taken, loop + slow
        shown = f"chat_eval, {task.name}: {task.rows:,} problems"
        yield measurement(shown, taken, bench.unit, "lower", LOOP, slow, measured=len(task.prompts), loop_measured=len(few))
    yield from total(bench, "chat_eval", f"chat_eval, all {sum(task.rows for task in tasks):,} problems", ours, loop)


def total(bench: Bench, part: str, name: str, ours: float, loop: float) -> Iterator[Measurement]:
    bench.seconds[part] = ours, loop
    yield measurement(name, ours, bench.unit, "lower", LOOP, loop, MUST, AIM)
    if bench.beside_nanochat:
        yield measurement(name, ours, "GPU-s", "lower", "nanochat, 8 x H100", NANOCHAT[part])


def together(bench: Bench) -> Iterator[Measurement]:
    if len(bench.seconds) > 1:
        ours, loop = (sum(both) for both in zip(*bench.seconds.values(), strict=True))
        yield measurement("CORE and chat_eval", ours, bench.unit, "lower", LOOP, loop, MUST, AIM)


def timed(work: Callable[[], object]) -> float:
    """Seconds; on a CPU those of all cores together, which other programs on the machine hardly change."""
    synchronize()
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    work()
    synchronize()
    return clock() - start


def _choose(scorer: Scorer, prompts: list[list[int]], letters: list[int]) -> None:
    for first in range(0, len(prompts), CHUNK):
        scorer.next_logits(prompts[first : first + CHUNK], letters)


def _answer(engine: Engine, task: ChatTask) -> None:
    assert task.answers is not None
    for prompt, tokens in zip(task.prompts, task.answers, strict=True):
        engine.add(prompt, Sampling(temperature=0), max_tokens=tokens)
    for _ in engine.finished():
        pass
