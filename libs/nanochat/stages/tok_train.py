"""tok_train: learn the BPE vocabulary from the first train shards. The validation shard is never read."""

from __future__ import annotations

import re
import time

import numpy as np

import rustbpe
from nanochat.config.recipe import SPECIAL_TOKENS, TokenizerSpec
from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.data.shards import COLUMN, ShardIndex
from nanochat.tokenizer import Tokenizer

# Contains numbers, contractions, punctuation, other scripts, an emoji of several code points, and names of special tokens.
ROUND_TRIP = (
    "Hello! It's 2026, I'm here; they've 1,234.56 reasons (or more)…\n\n\tdef f(x): return x**2  # code\r\n"
    "한국어와 日本語, Ελληνικά, русский, العربية, naïve café — 👩‍🚀 <|bos|> <|assistant_end|>   "
)
_EVERY = 0.5  # seconds between progress events


def run(ctx: StageContext) -> None:
    """Publish `tokenizer` and `results`. Raises StageError when the text cannot fill the vocabulary, and on a stop request."""
    if ctx.rank:
        return
    spec = TokenizerSpec.model_validate(ctx.spec.config["tokenizer"])
    shards = ShardIndex.load(ctx.input("shards"))
    started = time.monotonic()
    tokenizer = _train(ctx, spec, shards)
    seconds = time.monotonic() - started
    if tokenizer.decode(tokenizer.encode(ROUND_TRIP)) != ROUND_TRIP:
        raise StageError(
            "the new tokenizer does not reproduce a test text exactly",
            code="round_trip",
            hint="this is a defect of rustbpe; please report it together with the shards",
            exit_code=Exit.FAILED,
        )
    tokenizer.save(ctx.out / "tokenizer")
    ctx.publish("tokenizer", ctx.out / "tokenizer", vocab_size=tokenizer.vocab_size)
    lengths = tokenizer.token_bytes()
    lengths = lengths[lengths > 0]
    ctx.publish_results(
        {
            "vocab_size": tokenizer.vocab_size,
            "special_tokens": len(SPECIAL_TOKENS),
            "shards": len(shards.train),
            "max_chars": spec.max_chars,
            "doc_cap": spec.doc_cap,
            "train_seconds": round(seconds, 2),
            "token_bytes": {
                "min": int(lengths.min()),
                "max": int(lengths.max()),
                "mean": round(float(np.mean(lengths)), 2),
                "std": round(float(np.std(lengths)), 2),
            },
        }
    )


class _Stop(Exception):
    """Raised in the progress callback to end rustbpe's training."""


def _train(ctx: StageContext, spec: TokenizerSpec, shards: ShardIndex) -> Tokenizer:
    last = started = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if ctx.stop_requested():
            raise _Stop
        if done == total or now - last >= _EVERY:
            last = now
            eta = (now - started) * (total - done) / done if done else None
            ctx.events.emit(
                "progress", done=done, total=total, unit="merge", **({"eta_s": round(eta, 1)} if eta is not None else {})
            )

    ctx.events.emit("progress", done=0, total=spec.vocab_size - 256 - len(SPECIAL_TOKENS), unit="merge", note="counting words")
    try:
        merges = rustbpe.train_parquet(
            shards.train,
            spec.vocab_size - len(SPECIAL_TOKENS),
            column=COLUMN,
            max_chars=spec.max_chars,
            doc_cap=spec.doc_cap,
            progress=progress,
        )
    except _Stop as err:
        raise StageError("stopped on request", code="stopped", exit_code=Exit.STOPPED) from err
    except ValueError as err:
        raise _stage_error(spec, err) from err
    return Tokenizer.from_merges(merges)


def _stage_error(spec: TokenizerSpec, err: ValueError) -> StageError:
    """Express rustbpe's error in terms of the recipe: rustbpe's sizes do not count the special tokens."""
    text = str(err)
    if "more than this text can fill" in text and (found := re.search(r": ([\d,]+) tokens", text)):
        largest = int(found[1].replace(",", "")) + len(SPECIAL_TOKENS)
        return StageError(
            f"tokenizer.vocab_size {spec.vocab_size} is more than the text can fill; the largest possible is {largest}",
            code="vocab_too_large",
            hint="lower tokenizer.vocab_size, or use more text",
        )
    return StageError(f"the tokenizer cannot be trained: {text}", code="tok_train", hint="check data.source and tokenizer")
