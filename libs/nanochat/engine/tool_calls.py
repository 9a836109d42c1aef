"""Answer tool calls: the calculator computes the expression in a call, and its result is inserted into the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nanochat.engine.request import Row
from nanochat.engine.tools import calculate

if TYPE_CHECKING:
    from nanochat.tokenizer import Tokenizer


class ToolCalls:
    """Answers `<|python_start|>` expression `<|python_end|>` with `<|output_start|>` result `<|output_end|>`.

    An expression that the calculator does not understand gets no answer; the model then continues on its own.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.start, self.end, self.output_start, self.output_end = (
            tokenizer.special(f"<|{name}|>") for name in ("python_start", "python_end", "output_start", "output_end")
        )

    def see(self, row: Row, token: int) -> None:
        """Note the row's next token. At the end of a call, queue the tokens of its result."""
        if token == self.start:
            row.call = []
        elif token == self.end and row.call is not None:
            result = calculate(self.tokenizer.decode(row.call))
            if result is not None:
                row.forced.extend([self.output_start, *self.tokenizer.encode(result), self.output_end])
            row.call = None
        elif row.call is not None:
            row.call.append(token)
