"""The calculator in the loop: what the model writes in a tool call is computed, and the result is put into its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanochat.engine.request import Row
from nanochat.engine.tools import calculate

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer


class ToolCalls:
    """`<|python_start|>` expression `<|python_end|>` is answered by `<|output_start|>` result `<|output_end|>`.

    An expression that the calculator does not understand gets no answer, and the model continues by itself.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.start, self.end, self.output_start, self.output_end = (
            tokenizer.special(f"<|{name}|>") for name in ("python_start", "python_end", "output_start", "output_end")
        )

    def see(self, row: Row, token: int) -> None:
        """Follow the row by one token; at the end of a call queue its result."""
        if token == self.start:
            row.call = []
        elif token == self.end and row.call is not None:
            result = calculate(self.tokenizer.decode(row.call))
            if result is not None:
                row.forced.extend([self.output_start, *self.tokenizer.encode(result), self.output_end])
            row.call = None
        elif row.call is not None:
            row.call.append(token)
