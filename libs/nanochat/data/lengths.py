"""How many conversations of a mixture do not fit the context, found before a stage trains on them."""

from __future__ import annotations

from collections.abc import Sequence

from nanochat.contract.contract import StageContext, StageError
from nanochat.tasks.base import Conversation
from nanochat.tasks.learnable import none_fits
from nanochat.tokenizer import Tokenizer

SAMPLE = 2000  # conversations, in about a second; a mixture is shuffled, so its first ones are a fair sample


def check_lengths(ctx: StageContext, rows: Sequence[Conversation], tokenizer: Tokenizer, keep: int) -> dict[str, int]:
    """Return how many of the first `SAMPLE` rows were looked at, and how many are longer than the `keep` tokens that are kept.

    Emits a warning when some are. Raises StageError when every row of the mixture is longer.
    """
    lengths = [_length(rows[index], tokenizer) for index in range(min(len(rows), SAMPLE))]
    longer = sum(length > keep for length in lengths)
    if lengths and longer == len(lengths) and all(_length(rows[i], tokenizer) > keep for i in range(SAMPLE, len(rows))):
        raise none_fits(len(rows), keep, f"{min(lengths):,}, of those that were looked at")
    if longer and ctx.rank == 0:
        ctx.events.emit(
            "warning",
            code="rows_longer",
            message=f"{longer:,} of the first {len(lengths):,} conversations are longer than the context of {keep:,} tokens "
            f"and are cut to it; the longest has {max(lengths):,}",
        )
    return {"rows_measured": len(lengths), "rows_longer": longer}


def nothing_to_learn(rows: int, seq_len: int) -> StageError:
    """A whole pass over the conversations has given no target."""
    return StageError(
        f"none of the {rows} conversations has an answer to learn that begins within {seq_len} tokens",
        code="nothing_to_learn",
        hint="raise model.seq_len, or use a mixture with shorter questions and answers whose weight is not 0",
    )


def _length(conversation: Conversation, tokenizer: Tokenizer) -> int:
    return len(tokenizer.render(conversation)[0])
