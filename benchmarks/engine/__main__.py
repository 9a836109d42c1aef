"""The engine alone, without a server, on a model with random weights.

On a GPU: d20 in bf16, prompts of 512 tokens, 128 new ones, temperature 1, top-k 50. "Decoding" counts tokens while every stream
decodes. Its bandwidth use is what a step must read (each weight once, the keys and values at the mean context), divided by
the step's time and by what a copy of 2 GiB reaches. On a CPU: the recipe `tiny`, prompts of 128 tokens, 64 new ones.
Needs only torch, numpy, safetensors, pydantic and this tree.
"""

from __future__ import annotations

import statistics
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.cards import cards, device
from benchmarks.options import Options, Parser, names_of, positive_int, positive_ints
from benchmarks.process import JobError, run_job
from benchmarks.result import Measurement, finish, measurement

if TYPE_CHECKING:
    from nanochat.engine import Engine
    from nanochat.model import GPT

REPEATS = 3
SPEED = {
    1: (1200, 1900),
    32: (16_000, 23_000),
    128: (22_000, 31_000),
}  # streams -> tok/s that d20 on an H100 must, should reach
NANOCHAT = {1: 95.6, 32: 2763, 128: 9626}  # its own engine on an H100, with the prompt read, as measured on 2026-11-20


@dataclass(frozen=True, kw_only=True)
class EngineOptions(Options):
    recipe: str | None
    depth: int | None
    batches: list[int] | None
    dtype: str | None
    only: list[str] | None
    profile: bool


def main(argv: list[str] | None = None) -> None:
    parser = Parser("engine", __doc__)
    parser.add_argument(
        "--recipe",
        choices=["speedrun", "d26", "run1000", "modern", "tiny"],
        metavar="NAME",
        help="whose shape the model has (speedrun on a GPU, tiny on a CPU)",
    )
    parser.add_argument("--depth", type=positive_int, metavar="N", help="layers (20 on a GPU, 4 on a CPU or with --quick)")
    parser.add_argument(
        "--batches", type=positive_ints, metavar="N,…", help="numbers of streams (1,32,128 on a GPU, 1,32 on a CPU)"
    )
    parser.add_argument(
        "--dtype", choices=["bf16", "fp32"], metavar="NAME", help="bf16 or fp32 (what the device multiplies best)"
    )
    parser.add_argument(
        "--only", type=names_of(PARTS), metavar="NAME,…", help=f"of {', '.join(PARTS)} (all that the device has)"
    )
    parser.add_argument("--profile", action="store_true", help="also tell where a decoding step of each batch spends its time")
    options = parser.parse(EngineOptions, argv)

    bench = Bench(options)
    print(bench.title, flush=True)
    rows: list[Measurement] = []
    failed = []
    for name, part in PARTS.items():
        if name not in (options.only or PARTS) or not part.on(bench.gpu):
            continue
        try:
            for row in part.measure(bench):
                rows.append(row)
                show(row)  # at once: a machine that is taken away takes no reading with it
        except Exception as err:
            if isinstance(err, JobError):
                print(err.stderr[-3000:], flush=True)
            traceback.print_exc()
            failed.append(name)
    finish("engine", device(), rows, options)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


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
        self.profile, self.repeats = options.profile, 1 if quick else REPEATS
        # The bounds are about one model on one kind of GPU.
        self.judged = self.gpu and not quick and depth == 20 and self.recipe == "speedrun" and "h100" in device()
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
        from benchmarks.engine.subject import Specials
        from nanochat.engine import Engine

        if self._made is None:
            model = self.subject.build()
            tokenizer: Any = Specials()
            self._made = model, Engine(model, tokenizer, dtype=self.subject.torch_dtype, max_rows=max(64, *self.batches))
        return self._made


# -- parts: each yields its rows as soon as they are measured --


def load(bench: Bench) -> Iterator[Measurement]:
    """First, while this process holds no memory of the GPU."""
    found = run_job("benchmarks.engine.load", {"subject": asdict(bench.subject), "max_rows": 64}, seconds=300)
    size = f"{found['bytes'] / 1e9:.2f} GB"
    bounds = {"must": 20.0, "aim": 8.0} if bench.judged else {}
    yield measurement(f"load of {size} to ready, graphs of 1 to 64 rows", found["ready_s"], "s", "lower", **bounds)
    yield measurement(f"load of {size}: weights", found["weights_s"], "s", "lower")
    yield measurement("start of the process: imports and CUDA", found["imports_s"], "s", "lower")


def decode(bench: Bench) -> Iterator[Measurement]:
    from benchmarks.engine import measure

    copied = measure.copy_bandwidth() if bench.gpu else None
    if copied:
        yield measurement("copy of 2 GiB", copied / 1e12, "TB/s", "higher")
    alone: float | None = None
    for streams in bench.batches:
        name = "1 stream" if streams == 1 else f"{streams} streams"
        measure.decode(bench.engine, bench.prompts, streams, bench.prompt, bench.new)  # captures graphs, compiles kernels
        runs = [measure.decode(bench.engine, bench.prompts, streams, bench.prompt, bench.new) for _ in range(bench.repeats)]
        one = sorted(runs, key=lambda run: run.tok_per_s)[len(runs) // 2]
        must, aim = SPEED.get(streams, (None, None)) if bench.judged else (None, None)
        yield measurement(
            f"{name}: decoding", one.tok_per_s, "tok/s", "higher", must=must, aim=aim, step_ms=round(one.step_ms, 3)
        )
        whole = statistics.median(run.with_prompts for run in runs)
        peer = ("nanochat, 1 x H100", NANOCHAT.get(streams)) if bench.judged else (None, None)
        yield measurement(f"{name}: with the prompts read", whole, "tok/s", "higher", *peer)
        if copied:
            rate = 1000 * bench.subject.bytes_per_step(streams, one.context) / one.step_ms
            bounds = {"aim": 65.0 if streams == 1 else 70.0} if bench.judged else {}
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
    bounds = {"must": 8.0, "aim": 5.0} if bench.judged else {}
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
        bounds = {"must": 50.0, "aim": 60.0} if bench.judged else {}
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
        gap = measure.greedy_gap(bench.engine, bench.model, bench.prompts, min(streams, 32), bench.prompt // 4, 32)
        limit = 0.25 if bench.subject.dtype == "bf16" else 0.001
        name = f"greedy, {min(streams, 32)} at once: largest gap to the plain model's best logit"
        yield measurement(name, gap, "", "lower", must=limit)


def memory(bench: Bench) -> Iterator[Measurement]:
    import torch

    yield measurement("peak memory, cache included", torch.cuda.max_memory_allocated() / 2**30, "GiB", "lower")
    positions = bench.engine.blocks.count * bench.engine.blocks.size
    yield measurement("positions in the cache", positions, "", "higher")


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
}


def show(row: Measurement) -> None:
    peer = f"{row['ratio']:.2f} x {row['peer']}" if row["ratio"] else ""
    verdict = {None: "", True: "met", False: "MISSED"}[row["ok"]]
    print(f"{row['name']:<72} {row['value']:>12,.3f} {row['unit']:<8} {peer:<28} {verdict}".rstrip(), flush=True)


def tell(profile: dict[str, Any]) -> None:
    print(
        f"  a step of {profile['streams']}: {profile['wall_ms']} ms, busy {profile['busy_ms']} ms, {profile['launches']} launches"
    )
    for one in profile["top"]:
        print(f"  {one['ms']:9.4f} ms {one['launches']:7.1f} x {one['name']}", flush=True)


if __name__ == "__main__":
    main()
