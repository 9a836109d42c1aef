"""alphabet: the single letters among the tokens of the new tokenizer."""

from __future__ import annotations

from nanochat.contract.contract import StageContext
from nanochat.tokenizer import Tokenizer


def run(ctx: StageContext) -> None:
    """Publish `results` with the number of tokens that are one letter."""
    if ctx.rank:
        return
    tokenizer = Tokenizer.load(ctx.input("tokenizer"))
    texts = (tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    ctx.publish_results({"letters": sum(len(text) == 1 and text.isalpha() for text in texts)})
