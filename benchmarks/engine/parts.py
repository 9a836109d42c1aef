"""The parts of `make bench-engine`: each yields its rows as soon as they are measured.

torch takes seconds to import, so it is imported only when a part runs: options are checked before.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.cards import cards, device
from benchmarks.options import Options
from benchmarks.process import run_job
from benchmarks.result import Measurement, measurement

if TYPE_CHECKING:
    from benchmarks.engine.measure import Decoded
    from nanochat.engine import Engine
    from nanochat.model import GPT

REPEATS = 3
# Streams -> tok/s that d20 on an H100 must and should reach.
SPEED = {1: (1200, 1900), 32: (16_000, 23_000), 128: (22_000, 31_000)}
NANOCHAT = {1: 95.6, 32: 2763, 128: 9626}  # its own engine on an H100, with the prompt read, as measured on 2026-11-20
# By how much a token chosen greedily may fall short of the plain model's best logit: tokens that nearly tie change places.
GAP = {"bf16": 0.25, "fp32": 0.001}


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    recipe: str | None
    depth: int | None
    batches: list[int] | None
    dtype: str | None
    kv_cache: str
    weights: str
    only: list[str] | None
    peer: str | None
    profile: bool


class Bench:
    """The sizes of this run, and the model and the engine that its parts share."""

    def __init__(self, options: EngineOptions):
        import torch

        from benchmarks.engine.subject import Prompts, Subject  # imports torch, so only after the options have been checked
        from nanochat.distributed import native_dtype

        self.gpu, quick = bool(cards()), options.quick
        kind = "cuda" if self.gpu else "cpu"
        self.recipe = options.recipe or ("speedrun" if self.gpu else "tiny")
        depth = options.depth or (20 if self.gpu and not quick else 4)
        fast = "bf16" if native_dtype(torch.device(kind)) is torch.bfloat16 else "fp32"
        self.prompt, self.new = (512, 128) if self.gpu else (128, 64)
        self.long = 2048 if self.gpu else 192
        if quick:
            self.prompt, self.new, self.long = self.prompt // 4, self.new // 4, self.long // 4
        self.batches = options.batches or ([1, 4] if quick else [1, 32, 128] if self.gpu else [1, 32])
        self.subject = Subject(
            recipe=self.recipe,
            depth=depth,
            context=self.long + 256 if self.gpu else 256,
            dtype=options.dtype or fast,
            device=kind,
        )
        self.prompts = Prompts(self.subject.config.vocab_size)
        self.kv_cache, self.weights = options.kv_cache, options.weights
        self.profile, self.repeats = options.profile, 1 if quick else REPEATS
        # The bounds are about one model on one kind of GPU.
        self.judged = self.gpu and not quick and depth == 20 and self.recipe == "speedrun" and "h100" in device()
        self.decoded: dict[int, Decoded] = {}  # by number of streams
        self._made: tuple[GPT, Engine] | None = None

    @property
    def title(self) -> str:
        name = f"{self.recipe} d{self.subject.depth} {self.subject.dtype}"
        return f"{name} on {device()}: prompts of {self.prompt} tokens, {self.new} new"

    @property
    def model(self) -> GPT:
        return self._make()[0]

    @property
    def engine(self) -> Engine:
        return self._make()[1]

    def _make(self) -> tuple[GPT, Engine]:
        import torch

        from benchmarks.engine.subject import Specials
        from nanochat.engine import Engine

        if self._made is None:
            model = self.subject.build()
            tokenizer: Any = Specials()
            cache = torch.float8_e4m3fn if self.kv_cache == "fp8" else None
            rows = max(128, *self.batches)
            how: dict[str, Any] = {"cache_dtype": cache, "int8": self.weights == "int8", "max_rows": rows}
            self._made = model, Engine(model, tokenizer, dtype=self.subject.torch_dtype, **how)
        return self._made

    def decode(self, streams: int) -> Decoded:
        """The median of several runs."""
        from benchmarks.engine import measure

        if streams not in self.decoded:
            measure.decode(self.engine, self.prompts, streams, self.prompt, self.new)  # captures graphs, compiles kernels
            runs = [measure.decode(self.engine, self.prompts, streams, self.prompt, self.new) for _ in range(self.repeats)]
            self.decoded[streams] = sorted(runs, key=lambda run: run.with_prompts)[len(runs) // 2]
        return self.decoded[streams]


def load(bench: Bench) -> Iterator[Measurement]:
    """First, while this process holds no memory of the GPU."""
    found = run_job("benchmarks.engine.load", {"subject": asdict(bench.subject), "max_rows": 128}, seconds=300)
    size = f"{found['bytes'] / 1e9:.2f} GB"
    bounds: dict[str, Any] = {"must": 20.0, "aim": 8.0} if bench.judged else {}
    yield measurement(f"load of {size} to ready, graphs of 1 to 128 rows", found["ready_s"], "s", "lower", **bounds)
    yield measurement(f"load of {size}: weights", found["weights_s"], "s", "lower")
    yield measurement("start of the process: imports and CUDA", found["imports_s"], "s", "lower")


def decode(bench: Bench) -> Iterator[Measurement]:
    from benchmarks.engine import measure

    copied = measure.copy_bandwidth() if bench.gpu else None
    if copied:
        yield measurement("copy of 2 GiB", copied / 1e12, "TB/s", "higher")
    alone: float | None = None
    for streams in bench.batches:
        name = plural(streams)
        one = bench.decode(streams)
        must, aim = SPEED.get(streams, (None, None)) if bench.judged else (None, None)
        yield measurement(
            f"{name}: decoding", one.tok_per_s, "tok/s", "higher", must=must, aim=aim, step_ms=round(one.step_ms, 3)
        )
        whole = one.with_prompts
        peer = ("nanochat, 1 x H100", NANOCHAT.get(streams)) if bench.judged else (None, None)
        yield measurement(f"{name}: with the prompts read", whole, "tok/s", "higher", *peer)
        if copied:
            rate = 1000 * bench.subject.bytes_per_step(streams, one.context) / one.step_ms
            bounds: dict[str, Any] = {"aim": 65.0 if streams == 1 else 70.0} if bench.judged else {}
            yield measurement(f"{name}: bandwidth use", 100 * rate / copied, "%", "higher", **bounds)
        if streams == 1:
            alone = whole
        elif alone and not bench.gpu:
            yield measurement(
                f"{name} together", whole, "tok/s", "higher", "1 stream", alone, must=8.0 if streams == 32 else None
            )
        if bench.profile:
            tell(measure.profiled(bench.engine, bench.prompts, streams, bench.prompt))


def ttft(bench: Bench) -> Iterator[Measurement]:
    from benchmarks.engine import measure

    measure.first_token(bench.engine, bench.prompts, bench.prompt, 3)
    times = sorted(measure.first_token(bench.engine, bench.prompts, bench.prompt, 20))
    bounds: dict[str, Any] = {"must": 8.0, "aim": 5.0} if bench.judged else {}
    yield measurement(
        f"first token, prompt of {bench.prompt}, idle, p50", 1000 * statistics.median(times), "ms", "lower", **bounds
    )
    yield measurement(f"first token, prompt of {bench.prompt}, idle, slowest of 20", 1000 * times[-1], "ms", "lower")


def prefill(bench: Bench) -> Iterator[Measurement]:
    from benchmarks.engine import measure
    from nanochat.planning import gpus

    count = 8
    measure.prefill(bench.engine, bench.prompts, count, bench.long, 1)
    seconds = measure.prefill(bench.engine, bench.prompts, count, bench.long, 5)
    name = f"prefill of {count} x {bench.long:,}"
    yield measurement(name, count * bench.long / seconds, "tok/s", "higher")
    rate = count * bench.subject.prefill_flops(bench.long) / seconds
    yield measurement(name, rate / 1e12, "TFLOP/s", "higher")
    if bench.gpu and (card := gpus.find(device().replace("-", " "))):
        bounds: dict[str, Any] = {"must": 50.0, "aim": 60.0} if bench.judged else {}
        yield measurement(f"{name}: of the bf16 peak", 100 * rate / card.peak_flops, "%", "higher", **bounds)


def behind(bench: Bench) -> Iterator[Measurement]:
    from benchmarks.engine import measure

    for key, whose in (("short", "another key"), ("long", "the same key")):
        found = measure.behind(bench.engine, bench.prompts, 64, bench.long, bench.new, key)
        must = 1.0 if key == "short" and not bench.gpu else None
        yield measurement(f"first token of a short request of {whose} behind 64 long ones", found, "s", "lower", must=must)


def greedy(bench: Bench) -> Iterator[Measurement]:
    from benchmarks.engine import measure

    for streams in bench.batches:
        plain = bench.model if bench.weights == "model" else bench.engine.model  # the rounded one
        gap = measure.greedy_gap(bench.engine, plain, bench.prompts, min(streams, 32), bench.prompt // 4, 32)
        name = f"greedy, {min(streams, 32)} at once: largest gap to the plain model's best logit"
        yield measurement(name, gap, "", "lower", must=GAP[bench.subject.dtype])


def memory(bench: Bench) -> Iterator[Measurement]:
    import torch

    yield measurement("peak memory, cache included", torch.cuda.max_memory_allocated() / 2**30, "GiB", "lower")
    positions = bench.engine.blocks.count * bench.engine.blocks.size
    yield measurement("positions in the cache", positions, "", "higher")


def peer(bench: Bench) -> Iterator[Measurement]:
    """Ours beside `transformers` on the same weights. Its choices must be ours before its time is taken."""
    from benchmarks.engine.peer import Transformers, Unavailable

    try:
        theirs = Transformers(bench.subject, bench.model)
    except Unavailable as why:
        print(f"transformers: skipped, {why}", flush=True)
        return
    gap = theirs.greedy_gap(bench.model, bench.prompts, bench.prompt // 4, 32)
    limit = GAP[bench.subject.dtype]
    yield measurement(f"greedy, {theirs.name}: largest gap to the plain model's best logit", gap, "", "lower", must=limit)
    if gap > limit:
        raise RuntimeError(f"{theirs.name} computes another function than our model")
    row = partial(measurement, unit="tok/s", better="higher", must=1.0)
    for streams in bench.batches:
        ours, found = bench.decode(streams), theirs.generate(bench.prompts, streams, bench.prompt, bench.new)
        name = f"{theirs.name} generate"
        yield row(f"{plural(streams)}: decoding", ours.tok_per_s, peer=name, peer_value=found.tok_per_s)
        yield row(f"{plural(streams)}: with the prompts read", ours.with_prompts, peer=name, peer_value=found.with_prompts)
    for streams in bench.batches:  # after all calls of `generate`, which its manager's thread could slow down
        ours, speed = bench.decode(streams), theirs.continuous(bench.prompts, streams, bench.prompt, bench.new)
        name = f"{theirs.name} continuous batching"
        yield row(f"{plural(streams)}: with the prompts read", ours.with_prompts, peer=name, peer_value=speed)


def plural(streams: int) -> str:
    return "1 stream" if streams == 1 else f"{streams} streams"


@dataclass(frozen=True)
class Part:
    measure: Callable[[Bench], Iterator[Measurement]]
    gpu: bool = True
    cpu: bool = True

    def on(self, gpu: bool) -> bool:
        return self.gpu if gpu else self.cpu


PARTS = {
    "load": Part(load, cpu=False),
    "greedy": Part(greedy),
    "decode": Part(decode),
    "ttft": Part(ttft),
    "prefill": Part(prefill),
    "behind": Part(behind),
    "memory": Part(memory, cpu=False),
    "peer": Part(peer),
}


def tell(profile: dict[str, Any]) -> None:
    print(
        f"  a step of {profile['streams']}: {profile['wall_ms']} ms, busy {profile['busy_ms']} ms, {profile['launches']} launches"
    )
    for one in profile["top"]:
        print(f"  {one['ms']:9.4f} ms {one['launches']:7.1f} x {one['name']}", flush=True)
