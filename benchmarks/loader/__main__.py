"""Tokens per second of CPU time that one rank's feed delivers, beside the fastest training step aimed at.

`QUICK=1`: little text, a minute. `RECORD=1`: also writes benchmarks/results/loader-<device>.json.
`DATA`: a folder of parquet shards; without one, generated text.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rustbpe
from benchmarks.result import ROOT, Row, cpu, finish, row
from benchmarks.tokenizer import corpus
from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.data.shards import folder_shards, write_shard
from nanochat.stages.base_train import LOADERS
from nanochat.tokenizer import Tokenizer
from nanochat.train.feed import AHEAD

QUICK = os.environ.get("QUICK") == "1"
TOKENS = 4_000_000 if QUICK else 48_000_000
VOCAB = 8192 if QUICK else 65_536
TRAIN_CHARS = 6_000_000 if QUICK else 160_000_000
SYNTHETIC_CHARS = 20_000_000
BATCH_SIZE, SEQ_LEN = 32, 2048
STEP = 205_000  # tokens/s of one GPU: the fastest pretraining step aimed at (d20, fp8, one H100)
MUST = 3.0  # times ahead on one core


def main() -> None:
    print(f"text: {corpus.source()}; vocabulary {VOCAB}; {BATCH_SIZE} x {SEQ_LEN}; {cpu()}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = shards(folder)
        merges = rustbpe.train(corpus.load(TRAIN_CHARS), VOCAB - len(SPECIAL_TOKENS))
        Tokenizer.from_merges(merges).save(folder / "tokenizer")
        rows = list(itertools.chain.from_iterable(packing_rows(packing, folder / "tokenizer", files) for packing in LOADERS))
    finish("loader", cpu(), rows)


def shards(folder: Path) -> list[Path]:
    if any(corpus.DATA.glob("*.parquet")):
        return folder_shards(corpus.DATA)[0]
    texts = corpus.load(SYNTHETIC_CHARS)
    write_shard(folder / "text.parquet", texts)
    return [folder / "text.parquet"]


def packing_rows(packing: str, tokenizer: Path, files: list[Path]) -> Iterator[Row]:
    job = {
        "packing": packing,
        "tokenizer": str(tokenizer),
        "files": [str(path) for path in files],
        "batch_size": BATCH_SIZE,
        "seq_len": SEQ_LEN,
        "tokens": TOKENS,
    }
    found = run(job)
    print(
        f"{packing:<12} {found['cpu_tok_per_s'] / 1e6:6.2f}M tok/s of CPU time, {found['wall_tok_per_s'] / 1e6:6.2f}M wall; "
        f"longest batch {1000 * found['longest_s']:.0f} ms; {found['rss_mb']:.0f} MB, loader {found['loader_mb']:.0f} MB; "
        f"state {found['state_kb']:.1f} kB, resumed in {found['resume_s']:.2f} s; cropped {found.get('cropped_pct', 0):.1f} %",
        flush=True,
    )
    step = f"a step of {STEP // 1000}k tok/s"
    allowed = AHEAD * BATCH_SIZE * SEQ_LEN / STEP
    yield row(f"{packing}, one core", found["cpu_tok_per_s"], "tok/s", "higher", step, STEP, MUST)
    yield row(f"{packing}, longest batch", found["longest_s"], "s", "lower", f"{AHEAD} batches ahead", allowed, 1.0)
    yield row(f"{packing}, peak RSS", found["rss_mb"], "MB", "lower", of_it_the_loader_mb=round(found["loader_mb"]))
    yield row(f"{packing}, state", found["state_kb"], "kB", "lower")
    yield row(f"{packing}, resume", found["resume_s"], "s", "lower")
    if "cropped_pct" in found:
        yield row(f"{packing}, cropped", found["cropped_pct"], "%", "lower")


def run(job: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.loader.job", json.dumps(job)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"the measurement of {job['packing']} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
