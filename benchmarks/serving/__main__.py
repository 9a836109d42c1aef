"""The inference service under load: closed-loop clients, and requests that arrive by a Poisson process whatever has ended.

The client and the service are processes of their own, which meet over HTTP on loopback; answers are streamed. On a GPU: d20 in
bf16, prompts of 512 tokens, 128 new ones. On a CPU: the recipe `tiny`, prompts of 64 tokens, 32 new ones. Goodput counts the
requests whose first token comes within 200 ms and whose further tokens come every 20 ms on average. The rates are shares of the
most requests a second that the closed-loop clients got.

The part `http` needs no model: a replay answers in place of the engine process, and what is measured is the CPU time that the
HTTP process takes for a request with a prompt of 512 tokens and for a streamed token. Needs the service's packages (the extra `inference`) and `rustbpe`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cards import cards, device
from benchmarks.options import Options, Parser, names_of, positive_int, positive_ints, positive_number
from benchmarks.process import attempted, run_job
from benchmarks.result import Measurement, finish, measurement
from benchmarks.serving import http

ALONE = 32  # requests at once for the comparison with the engine alone


def shares(text: str) -> list[float]:
    found = [positive_number(part) for part in text.split(",")]
    if max(found) > 10:
        raise argparse.ArgumentTypeError(f"{max(found)} is no share: 1 is as much as the service can answer")
    return found


@dataclass(frozen=True, kw_only=True)
class ServingOptions(Options):
    depth: int | None
    concurrency: list[int] | None
    rates: list[float] | None
    only: list[str]


def main(argv: list[str] | None = None) -> None:
    parser = Parser("serving", __doc__)
    parser.add_argument("--depth", type=positive_int, metavar="N", help="layers (20 on a GPU, 4 on a CPU or with --quick)")
    parser.add_argument(
        "--concurrency", type=positive_ints, metavar="N,…", help="closed-loop clients at once (1,8,32,128,256; quick 1,4)"
    )
    parser.add_argument(
        "--rates", type=shares, metavar="SHARE,…", help="of the most requests a second (0.25,0.5,0.8; quick 0.5)"
    )
    parser.add_argument(
        "--only", type=names_of(PARTS), default=list(PARTS), metavar="PART,…", help=f"default: {','.join(PARTS)}"
    )
    options = parser.parse(ServingOptions, argv)
    rows: list[Measurement] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for part in options.only:
            place = Path(folder) / part
            place.mkdir()
            with attempted(part, failed):
                rows.extend(PARTS[part](options, place))  # keeps what came before an error
    finish("serving", device(), rows, options)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


class Load:
    """The sizes of this run, and what it does one after the other."""

    def __init__(self, options: ServingOptions, folder: Path):
        self.gpu, self.quick, self.folder = bool(cards()), options.quick, folder
        self.recipe, depth = ("speedrun", 20) if self.gpu else ("tiny", 4)
        self.depth = options.depth or (4 if self.quick else depth)
        self.prompt, self.new = (512, 128) if self.gpu else (64, 32)
        if self.quick:
            self.prompt, self.new = 16, 8
        self.concurrency = options.concurrency or ([1, 4] if self.quick else [1, 8, 32, 128, 256])
        self.rates = options.rates or ([0.5] if self.quick else [0.25, 0.5, 0.8])
        self.max_rows = 128 if self.gpu else 64
        self.job: dict[str, Any] = {"folder": str(folder), "prompt": self.prompt, "new": self.new, "max_rows": self.max_rows}

    def rows(self) -> Iterator[Measurement]:
        from benchmarks.engine.subject import Subject  # imports torch, so only after the options have been checked
        from benchmarks.serving.server import running

        kind = "cuda" if self.gpu else "cpu"
        subject = Subject(recipe=self.recipe, depth=self.depth, context=2048 if self.gpu else 256, dtype="bf16", device=kind)
        self.job |= run_job("benchmarks.serving.write", {"folder": str(self.folder), "subject": asdict(subject)}, seconds=300)
        print(f"{self.recipe} d{self.depth} on {device()}: prompts of {self.prompt} tokens, {self.new} new", flush=True)
        print(
            f"{'':<22} {'tok/s':>9} {'req/s':>8} {'good/s':>8} {'first p50':>10} {'p99 ms':>9} {'between p50':>12} {'p99 ms':>8}"
        )
        times = 1 if self.quick else 3
        alone = run_job("benchmarks.serving.alone", {**self.job, "device": kind, "concurrency": ALONE, "times": times})
        with running(self.folder, kind, self.max_rows) as service:
            port = service.port
            self.load(port, "", concurrency=ALONE, count=2 * ALONE)  # compiles kernels, captures graphs
            burst = max(self.load(port, "", concurrency=ALONE, count=ALONE)["tok_per_s"] for _ in range(times))
            overhead = 100 * (1 - burst / alone["tok_per_s"])
            print(f"{ALONE} at once: {burst:,.0f} tok/s; the engine alone {alone['tok_per_s']:,.0f}: {overhead:.1f} % overhead")
            name = f"{ALONE} requests at once"
            yield measurement(name, burst, "tok/s", "higher", "the engine alone", alone["tok_per_s"], must=0.9)
            yield measurement(f"{name}: overhead of the service", overhead, "%", "lower")
            most = 0.0
            for clients in self.concurrency:
                found = self.load(port, f"{clients} clients", concurrency=clients, count=max(20, 3 * clients))
                most = max(most, found["requests_per_s"])
                yield from self.told(f"{clients} clients", found)
            for share in self.rates:
                rate = share * most
                count = 10 if self.quick else max(30, min(400, round(20 * rate)))
                name = f"{rate:.1f} requests/s"
                yield from self.told(name, self.load(port, name, rate=rate, count=count))

    def load(self, port: int, name: str, **how: Any) -> dict[str, Any]:
        """One load, in a process of its own. Raises RuntimeError if a request was refused or failed."""
        ids = self.job["ids"]
        job = {"port": port, "seed": 1, "ids": ids, "prompt": self.prompt, "new": self.new, **how}
        found = run_job("benchmarks.serving.client", job, seconds=600)
        if found["failed"]:
            raise RuntimeError(f"{found['failed']} of {found['requests']} requests failed")
        if name:
            cells = [found["tok_per_s"], found["requests_per_s"], found["goodput_per_s"]]
            cells += [found[key][p] for key in ("ttft_ms", "between_ms") for p in ("p50", "p99")]
            widths = (9, 8, 8, 10, 9, 12, 8)
            print(f"{name:<22} " + " ".join(f"{cell:>{w},.1f}" for cell, w in zip(cells, widths, strict=True)), flush=True)
        return found

    def told(self, name: str, found: dict[str, Any]) -> Iterator[Measurement]:
        more = {key: found[key] for key in ("requests", "refused", "requests_per_s", "tokens_per_piece")}
        yield measurement(name, found["tok_per_s"], "tok/s", "higher", **more)
        for key, what in (("ttft_ms", "first token"), ("between_ms", "between tokens")):
            for share in ("p50", "p99"):
                yield measurement(f"{name}: {what}, {share}", found[key][share], "ms", "lower")
        yield measurement(f"{name}: goodput", found["goodput_per_s"], "requests/s", "higher")


PARTS: dict[str, Callable[[ServingOptions, Path], Iterator[Measurement]]] = {
    "http": lambda options, folder: http.rows(folder, options.quick),
    "load": lambda options, folder: Load(options, folder).rows(),
}

if __name__ == "__main__":
    main()
