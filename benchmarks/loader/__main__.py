"""Tokens per second of CPU time that the data loader delivers to one rank, for each packing of text.

The peer is the fastest training step that we aim at, which uses 205,000 tokens per second.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import rustbpe
from benchmarks.options import Options, Parser, default_data, shards_folder
from benchmarks.process import run_job
from benchmarks.result import Measurement, cpu, finish, measurement
from benchmarks.tokenizer import corpus
from nanochat.config.recipe import SPECIAL_TOKENS, Packing
from nanochat.data.folder import folder_shards
from nanochat.data.shards import write_shard
from nanochat.tokenizer import Tokenizer

GENERATED_CHARS = 20_000_000
BATCH_SIZE, SEQ_LEN = 32, 2048
STEP = 205_000  # tokens/s of one GPU: the fastest pretraining step aimed at (d20, fp8, one H100)
MUST = 3.0  # times as fast as the step, on one core


@dataclass(frozen=True, kw_only=True)
class LoaderOptions(Options):
    data: Path | None


@dataclass(frozen=True)
class Sizes:
    tokens: int
    vocab: int
    train_chars: int  # the tokenizer learns from them


FULL = Sizes(tokens=48_000_000, vocab=65_536, train_chars=160_000_000)
QUICK = Sizes(tokens=4_000_000, vocab=8192, train_chars=6_000_000)


def main(argv: list[str] | None = None) -> None:
    parser = Parser("loader", __doc__)
    parser.add_argument("--data", type=shards_folder, default=default_data(), metavar="FOLDER", help=corpus.DATA_HELP)
    options = parser.parse(LoaderOptions, argv)

    sizes = QUICK if options.quick else FULL
    print(f"text: {corpus.source(options.data)}; vocabulary {sizes.vocab}; {BATCH_SIZE} x {SEQ_LEN}; {cpu()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = shards(options.data, folder)
        merges = rustbpe.train(corpus.load(sizes.train_chars, options.data), sizes.vocab - len(SPECIAL_TOKENS))
        Tokenizer.from_merges(merges).save(folder / "tokenizer")
        rows = list(
            itertools.chain.from_iterable(
                measured(packing, folder / "tokenizer", files, sizes.tokens) for packing in get_args(Packing)
            )
        )
    finish("loader", cpu(), rows, options)


def shards(data: Path | None, folder: Path) -> list[Path]:
    if data:
        return folder_shards(data)[0]
    write_shard(folder / "text.parquet", corpus.load(GENERATED_CHARS))
    return [folder / "text.parquet"]


def measured(packing: str, tokenizer: Path, files: list[Path], tokens: int) -> Iterator[Measurement]:
    job = {
        "packing": packing,
        "tokenizer": str(tokenizer),
        "files": [str(path) for path in files],
        "batch_size": BATCH_SIZE,
        "seq_len": SEQ_LEN,
        "tokens": tokens,
    }
    found = run_job("benchmarks.loader.job", job)
    print(
        f"{packing:<12} {found['cpu_tok_per_s'] / 1e6:6.2f}M tok/s of CPU time, {found['wall_tok_per_s'] / 1e6:6.2f}M wall; "
        f"longest batch {1000 * found['longest_s']:.0f} ms; {found['rss_mb']:.0f} MB, loader {found['loader_mb']:.0f} MB; "
        f"state {found['state_kb']:.1f} kB, resumed in {found['resume_s']:.2f} s; cropped {found.get('cropped_pct', 0):.1f} %",
        flush=True,
    )
    step, ahead = f"a step of {STEP // 1000}k tok/s", found["batches_ahead"]
    allowed = ahead * BATCH_SIZE * SEQ_LEN / STEP
    yield measurement(f"{packing}, one core", found["cpu_tok_per_s"], "tok/s", "higher", step, STEP, MUST)
    yield measurement(f"{packing}, longest batch", found["longest_s"], "s", "lower", f"{ahead} batches ahead", allowed, 1.0)
    yield measurement(f"{packing}, peak RSS", found["rss_mb"], "MB", "lower", of_it_the_loader_mb=round(found["loader_mb"]))
    yield measurement(f"{packing}, state", found["state_kb"], "kB", "lower")
    yield measurement(f"{packing}, resume", found["resume_s"], "s", "lower")
    if "cropped_pct" in found:
        yield measurement(f"{packing}, cropped", found["cropped_pct"], "%", "lower")


if __name__ == "__main__":
    main()
