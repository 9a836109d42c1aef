"""`python -m benchmarks.tokenizer.job <json>`: one measurement of one library in a process of its own; prints one line of JSON.

A peer is imported inside the function that measures it, since each process has only its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.process import cpu_seconds, job_of_argv, peak_rss_mb
from benchmarks.tokenizer import corpus

Ids = Sequence[Sequence[int]]


def main() -> None:
    job = job_of_argv()
    measure = {"train": train, "encode": encode, "batch": batch}[job["kind"]]
    print(json.dumps(measure(job)))


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    cpu, started = cpu_seconds(), time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    return result, {"seconds": seconds, "cpu": cpu_seconds() - cpu, "rss_mb": peak_rss_mb()}


def load(job: dict[str, Any]) -> tuple[list[str], float]:
    """The documents, and how many megabytes they are as UTF-8."""
    documents = corpus.load(job["chars"], Path(job["data"]) if job["data"] else None)
    return documents, sum(len(document.encode()) for document in documents) / 1e6


def train(job: dict[str, Any]) -> dict[str, Any]:
    """Learn `vocab` tokens from documents in memory."""
    documents, megabytes = load(job)
    vocab, pattern = job["vocab"], job["pattern"]
    calls: dict[str, Callable[[], Any]] = {
        "ours": lambda: ours_train(documents, vocab, pattern, job["threads"]),
        "rustbpe 0.1.0": lambda: rustbpe_train(documents, vocab, pattern),
        "tokenizers": lambda: tokenizers_train(documents, vocab, pattern),
        "bpeasy": lambda: bpeasy_train(documents, vocab, pattern),
        "gigatoken": lambda: gigatoken_train(documents, vocab),
        "fast-bpe-rs": lambda: fast_bpe_rs_train(documents, vocab, pattern),
    }
    tokens, figures = timed(calls[job["library"]])
    return figures | {"mb": megabytes, "digest": digest_tokens(tokens) if tokens else None}


def digest_tokens(tokens: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(len(token).to_bytes(4, "little") + token for token in tokens)).hexdigest()


def ours_train(documents: list[str], vocab: int, pattern: str, threads: int) -> list[bytes]:
    import rustbpe

    return list(rustbpe.train(documents, vocab, pattern=pattern, num_threads=threads).mergeable_ranks())


def rustbpe_train(documents: list[str], vocab: int, pattern: str) -> list[bytes]:
    import rustbpe

    tokenizer = rustbpe.Tokenizer()
    tokenizer.train_from_iterator(iter(documents), vocab, pattern=pattern)
    return [bytes(token) for token, _ in sorted(tokenizer.get_mergeable_ranks(), key=lambda item: item[1])]


def tokenizers_train(documents: list[str], vocab: int, pattern: str) -> None:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        iter(documents), trainers.BpeTrainer(vocab_size=vocab, show_progress=False, initial_alphabet=alphabet)
    )


def bpeasy_train(documents: list[str], vocab: int, pattern: str) -> None:
    import bpeasy

    bpeasy.train_bpe(iter(documents), pattern, 1000, vocab)


def gigatoken_train(documents: list[str], vocab: int) -> None:
    """With its own fixed pattern. It reads a file or one buffer, so all documents are joined."""
    import gigatoken

    gigatoken.train_bpe("\0".join(documents).encode(), vocab, [], separator=b"\0")


def fast_bpe_rs_train(documents: list[str], vocab: int, pattern: str) -> None:
    import fast_bpe_rs

    fast_bpe_rs.BPE(pattern).train(vocab, documents)


def encode(job: dict[str, Any]) -> dict[str, Any]:
    """Encode on one thread, to the form that suits the library best: arrays for ours and gigatoken, lists for the others.

    The first pass is called cold, the best of three more warm.
    """
    documents, megabytes = load(job)
    encode_all = encoder(job["library"], job)
    ids, cold = timed(lambda: encode_all(documents))
    digest = hashlib.sha256()
    for document in ids:
        digest.update(np.asarray(document, np.uint32).tobytes())
    del ids
    warm = min((timed(lambda: encode_all(documents))[1] for _ in range(3)), key=lambda figures: figures["cpu"])
    rates = {
        f"{name}_{clock}": megabytes / run[key]
        for name, run in (("cold", cold), ("warm", warm))
        for clock, key in (("wall", "seconds"), ("cpu", "cpu"))
    }
    return rates | {"mb": megabytes, "rss_mb": warm["rss_mb"], "digest": digest.hexdigest()}


def encoder(library: str, job: dict[str, Any]) -> Callable[[list[str]], Ids]:
    ranks, pattern = job["ranks"], job["pattern"]
    if library in ("ours", "ours, lists"):
        import rustbpe

        ours = rustbpe.Tokenizer.from_tiktoken(ranks, pattern)
        if library == "ours, lists":
            return lambda documents: [ours.encode(document) for document in documents]

        def flat(documents: list[str]) -> Ids:
            ids, offsets = ours.encode_to_numpy(documents, num_threads=1)
            return [ids[start:end] for start, end in itertools.pairwise(offsets.tolist())]

        return flat
    if library in ("tiktoken", "tiktoken, numpy"):
        import tiktoken
        from tiktoken.load import load_tiktoken_bpe

        theirs = tiktoken.Encoding("bench", pat_str=pattern, mergeable_ranks=load_tiktoken_bpe(ranks), special_tokens={})
        if library == "tiktoken, numpy":
            return lambda documents: [theirs.encode_to_numpy(document, disallowed_special=()) for document in documents]
        return lambda documents: [theirs.encode_ordinary(document) for document in documents]
    if library == "tokenizers":
        import tokenizers

        hugging = tokenizers.Tokenizer.from_file(job["hf"])
        return lambda documents: [hugging.encode(document).ids for document in documents]
    if library == "fastokens":
        import fastokens

        fast = (
            fastokens.Tokenizer.from_file(job["hf"])
            if hasattr(fastokens.Tokenizer, "from_file")
            else fastokens.Tokenizer(job["hf"])
        )
        first = fast.encode("a")
        return lambda documents: [list(getattr(e, "ids", e)) for e in map(fast.encode, documents)] if first else []
    import gigatoken

    # It knows only a fixed set of patterns, by name or as they stand in tokenizer.json.
    giga = gigatoken.Tokenizer.from_tiktoken(ranks, job["pattern_name"])
    return lambda documents: [giga.encode(document) for document in documents]


def batch(job: dict[str, Any]) -> dict[str, Any]:
    """Encode with ours to one flat array, as the data loader does; the best of three passes after a first one."""
    import rustbpe

    documents, megabytes = load(job)
    tokenizer = rustbpe.Tokenizer.from_tiktoken(job["ranks"], job["pattern"])
    runs = [timed(lambda: tokenizer.encode_to_numpy(documents, num_threads=job["threads"]))[1] for _ in range(4)]
    best = min(run["seconds"] for run in runs[1:])
    return {"wall": megabytes / best, "rss_mb": runs[-1]["rss_mb"], "mb": megabytes}


if __name__ == "__main__":
    main()
