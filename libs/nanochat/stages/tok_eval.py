"""tok_eval: compare the new tokenizer with those of GPT-2 and GPT-4 by bytes per token.

The texts are five short passages, some unlike the training text, and the beginnings of a train and a validation shard.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nanochat.contract.contract import Exit, StageContext, StageError
from nanochat.data import peers
from nanochat.data.passages import PASSAGES
from nanochat.data.shards import ShardIndex, documents
from nanochat.tokenizer import Tokenizer

OURS = "ours"


def run(ctx: StageContext) -> None:
    """Publish `results`: the table, and why another tokenizer is not in it.

    Raises StageError when the new tokenizer does not decode a text to the same text.
    """
    if ctx.rank:
        return
    tokenizer = Tokenizer.load(ctx.input("tokenizer"))
    texts = _texts(ShardIndex.load(ctx.input("shards")))
    loaded = {name: peers.load(name) for name in peers.NAMES}
    available = {name: peer for name, peer in loaded.items() if not isinstance(peer, str)}
    table: list[dict[str, Any]] = []
    for done, (name, text) in enumerate(texts.items()):
        ctx.events.emit("progress", done=done, total=len(texts), unit="text", note=name)
        if tokenizer.decode(tokenizer.encode(text)) != text:
            raise StageError(
                f"the tokenizer does not reproduce the text {name!r} exactly",
                code="round_trip",
                hint="rerun the tok_train stage",
                exit_code=Exit.FAILED,
            )
        tokens = {peer: len(encoding.encode_ordinary(text)) for peer, encoding in available.items()}
        table += _rows(name, text, {OURS: len(tokenizer.encode(text)), **tokens})
    ctx.events.emit("progress", done=len(texts), total=len(texts), unit="text")
    for name in texts:
        ratio = {row["tokenizer"]: row["ratio"] for row in table if row["text"] == name}
        ctx.events.emit("eval", name=f"bytes per token: {name}", values=ratio)
    ctx.publish_results(
        {
            "vocab_size": {OURS: tokenizer.vocab_size, **{name: peer.n_vocab for name, peer in available.items()}},
            "table": table,
            "not_available": {name: reason for name, reason in loaded.items() if isinstance(reason, str)},
        }
    )


def _texts(shards: ShardIndex) -> dict[str, str]:
    """The passages, the first row group of the first train shard, and the first row group of the validation shard."""
    return {**PASSAGES, "train": _first_row_group(shards.train[0]), "val": _first_row_group(shards.val[0])}


def _first_row_group(path: Path) -> str:
    return "\n".join(text for text in documents(path, 0) if text)


def _rows(name: str, text: str, tokens: dict[str, int]) -> list[dict[str, Any]]:
    """One row per tokenizer. `fewer_pct`: how many fewer tokens ours needs, in percent of the other tokenizer's tokens."""
    size = len(text.encode())
    rows = []
    for peer, count in tokens.items():
        row: dict[str, Any] = {"text": name, "bytes": size, "tokenizer": peer, "tokens": count, "ratio": round(size / count, 3)}
        if peer != OURS:
            row["fewer_pct"] = round(100 * (count - tokens[OURS]) / count, 1)
        rows.append(row)
    return rows
