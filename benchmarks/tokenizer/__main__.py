"""Our tokenizer beside every other library that can be installed, one after another on the same text."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rustbpe
from benchmarks.options import Options, Parser, default_data, positive_int, shards_folder
from benchmarks.result import Measurement, cpu, finish, measurement
from benchmarks.tokenizer import corpus, peers

# How many times as fast as a peer we must be.
TRAINERS = {"rustbpe 0.1.0": 4.0, "gigatoken": 1.0, "fast-bpe-rs": 1.0, "bpeasy": 1.0, "tokenizers": 1.0}
TRAIN_AIM = {"rustbpe 0.1.0": 6.0}
ENCODE_MUST = {"tiktoken": (8.0, 15.0)}  # first pass and warm; as fast as the others
ENCODERS = {
    "nanochat": ("tiktoken", "tiktoken, numpy", "tokenizers", "fastokens", "ours, lists"),
    "cl100k": ("tiktoken", "tokenizers", "fastokens", "gigatoken"),
}
PATTERNS = {"nanochat": rustbpe.SPLIT_PATTERN, "cl100k": rustbpe.CL100K_PATTERN}


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions(Options):
    data: Path | None
    threads: int


@dataclass(frozen=True)
class Sizes:
    train_chars: int
    encode_chars: int
    vocab: int
    growth_mb: tuple[int, ...]
    growth_vocab: int


FULL = Sizes(160_000_000, 20_000_000, 65_536, (10, 40, 160), 65_536)
QUICK = Sizes(6_000_000, 2_000_000, 8192, (1, 3), 4096)


def main(argv: list[str] | None = None) -> None:
    parser = Parser("tokenizer", __doc__)
    parser.add_argument("--data", type=shards_folder, default=default_data(), metavar="FOLDER", help=corpus.DATA_HELP)
    parser.add_argument("--threads", type=positive_int, default=2, metavar="N", help="for training and for batches (2)")
    options = parser.parse(TokenizerOptions, argv)

    sizes = QUICK if options.quick else FULL
    print(f"text: {corpus.source(options.data)}; vocabulary {sizes.vocab}; {options.threads} threads; {cpu()}")
    with tempfile.TemporaryDirectory() as folder:
        rows = [*training(options, sizes), *growth(options, sizes), *encoding(options, sizes, Path(folder))]
    finish("tokenizer", cpu(), rows, options)


def train_job(options: TokenizerOptions, chars: int, vocab: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "data": str(options.data) if options.data else None,
        "chars": chars,
        "vocab": vocab,
        "pattern": PATTERNS["nanochat"],
        "threads": options.threads,
    }


def training(options: TokenizerOptions, sizes: Sizes) -> list[Measurement]:
    job = train_job(options, sizes.train_chars, sizes.vocab)
    print(f"\n{'training':<16} {'seconds':>8} {'cpu s':>8} {'MB/s':>8} {'RSS MB':>8} {'ratio':>7}")
    # Ours runs before and after the first peer, and the better run counts: other work may use the machine as well.
    first, rival, second = (peers.run(name, job) for name in ("ours", "rustbpe 0.1.0", "ours"))
    ours = min((first, second), key=lambda run: run["seconds"])
    print_training("ours", ours, ours)
    name = f"train {sizes.vocab}"
    rows = []
    for peer, must in TRAINERS.items():
        found = rival if peer == "rustbpe 0.1.0" else peers.run(peer, job)
        print_training(peer, found, ours)
        if "reason" in found:
            rows.append(measurement(name, ours["seconds"], "s", "lower", peer, must=must, reason=found["reason"]))
            continue
        same = {"equal": found["digest"] == ours["digest"]} if found["digest"] else {}
        smaller = 1.0 if peer == "rustbpe 0.1.0" else None
        rows += [
            measurement(name, ours["seconds"], "s", "lower", peer, found["seconds"], must, TRAIN_AIM.get(peer), **same),
            measurement("train CPU", ours["cpu"], "s", "lower", peer, found["cpu"], aim=must),
            measurement("train peak RSS", ours["rss_mb"], "MB", "lower", peer, found["rss_mb"], smaller),
        ]
    return rows


def print_training(name: str, found: dict[str, Any], ours: dict[str, Any]) -> None:
    if "reason" in found:
        print(f"{name:<16} not measured: {found['reason']}")
        return
    rate, ratio = found["mb"] / found["seconds"], found["seconds"] / ours["seconds"]
    print(f"{name:<16} {found['seconds']:8.2f} {found['cpu']:8.2f} {rate:8.1f} {found['rss_mb']:8.0f} {ratio:7.2f}", flush=True)


def growth(options: TokenizerOptions, sizes: Sizes) -> list[Measurement]:
    """Our training on more and more text: time and memory must not grow faster than the text."""
    print(f"\n{'growth of ours':<16} {'seconds':>8} {'cpu s':>8} {'MB/s':>8} {'RSS MB':>8}   (the text itself is in memory)")
    rows = []
    for megabytes in sizes.growth_mb:
        found = peers.run("ours", train_job(options, megabytes * 1_000_000, sizes.growth_vocab))
        rate = found["mb"] / found["seconds"]
        print(f"{megabytes:>13} MB {found['seconds']:8.2f} {found['cpu']:8.2f} {rate:8.1f} {found['rss_mb']:8.0f}", flush=True)
        used = {"rss_mb": round(found["rss_mb"]), "cpu": round(found["cpu"], 2)}
        rows.append(measurement(f"train growth {megabytes} MB", found["seconds"], "s", "lower", **used))
    return rows


def encoding(options: TokenizerOptions, sizes: Sizes, folder: Path) -> list[Measurement]:
    documents = corpus.load(sizes.train_chars, options.data)
    for name, pattern in PATTERNS.items():
        tokenizer = rustbpe.train(documents, sizes.vocab, pattern=pattern, num_threads=options.threads)
        tokenizer.save_tiktoken(folder / f"{name}.tiktoken")
        (folder / f"{name}.json").write_text(tokenizer.to_hf_json())
    del documents
    rows = []
    for name, pattern in PATTERNS.items():
        job = {
            "data": str(options.data) if options.data else None,
            "chars": sizes.encode_chars,
            "ranks": str(folder / f"{name}.tiktoken"),
            "hf": str(folder / f"{name}.json"),
            "pattern": pattern,
            "pattern_name": name,
        }
        rows += encoders(name, job)
        rows += batches(name, job, options.threads)
    return rows


def encoders(pattern: str, job: dict[str, Any]) -> list[Measurement]:
    head = f"encoding, {pattern}"
    print(
        f"\n{head:<18} {'cold MB/s':>10} {'warm MB/s':>10} {'RSS MB':>8} {'cold x':>7} {'warm x':>7}  ids (MB/s of CPU time, 1 thread)"
    )
    job = job | {"kind": "encode", "threads": 1}
    ours = peers.run("ours", job)
    found = {"ours": ours} | {name: peers.run(name, job) for name in ENCODERS[pattern]}
    rows = []
    for name, run in found.items():
        if "reason" in run:
            print(f"{name:<18} not measured: {run['reason']}")
            rows.append(measurement(f"encode cold {pattern}", ours["cold_cpu"], "MB/s", "higher", name, reason=run["reason"]))
            continue
        equal = run["digest"] == found["tiktoken"].get("digest")
        cold, warm = ours["cold_cpu"] / run["cold_cpu"], ours["warm_cpu"] / run["warm_cpu"]
        print(
            f"{name:<18} {run['cold_cpu']:10.1f} {run['warm_cpu']:10.1f} {run['rss_mb']:8.0f} {cold:7.2f} {warm:7.2f}  "
            f"{'equal' if equal else 'DIFFERENT'}",
            flush=True,
        )
        if name == "ours":
            continue
        musts = ENCODE_MUST.get(name) or ((1.0, 1.0) if equal and "ours" not in name else (None, None))
        for kind, must in zip(("cold", "warm"), musts, strict=True):
            speeds = ours[f"{kind}_cpu"], run[f"{kind}_cpu"]
            rows.append(
                measurement(f"encode {kind} {pattern}", speeds[0], "MB/s", "higher", name, speeds[1], must, equal=equal)
            )
    return rows


def batches(pattern: str, job: dict[str, Any], threads: int) -> list[Measurement]:
    """Many documents in one call, on several threads beside one."""
    one, many = (peers.run("ours", job | {"kind": "batch", "threads": count}) for count in (1, threads))
    print(f"to numpy, wall: {one['wall']:.1f} MB/s on 1 thread, {many['wall']:.1f} MB/s on {threads}")
    name = f"encode_to_numpy {pattern} {threads} threads"
    return [measurement(name, many["wall"], "MB/s", "higher", "ours on 1 thread", one["wall"], aim=0.8 * threads)]


if __name__ == "__main__":
    main()
