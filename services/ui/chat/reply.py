"""An answer while it grows, as the page shows it: text, calculations, probabilities, and what it took."""

from __future__ import annotations

import math
import time
from typing import Any

from client.inference import Calculation, Piece, TokenLogprob, Usage
from services.ui.chat.markdown import blocks


class Reply:
    def __init__(self, model: str, label: str, temperature: float) -> None:
        self.made_by = {"model": model, "label": label, "temperature": temperature}
        self.text = ""
        self.calculations: list[Calculation] = []
        self.logprobs: list[TokenLogprob] = []
        self.usage: Usage | None = None
        self.finish = ""
        self.error = ""
        self.ended = False
        self._began = time.monotonic()
        self._first: float | None = None
        self._last = self._began

    def add(self, piece: Piece) -> None:
        self._last = time.monotonic()
        if self._first is None and (piece.text or piece.calculations):
            self._first = self._last
        self.text += piece.text
        self.calculations += piece.calculations
        self.logprobs += piece.logprobs
        self.usage = piece.usage or self.usage
        self.finish = piece.finish_reason or self.finish

    def end(self, error: str = "") -> None:
        self.error, self.ended = error, True

    def stop(self) -> None:
        self.finish, self.ended = self.finish or "stopped", True

    def shown(self) -> dict[str, Any]:
        """What the browser gets. It holds no placeholder, so that nothing but the model's own words is sent back to the model."""
        return {
            **self.made_by,
            "text": self.text,
            "blocks": blocks(self.text),
            "calculations": [c.model_dump() for c in self.calculations],
            "tokens": [[one.token, _share(one.logprob), [[t, _share(p)] for t, p in one.top]] for one in self.logprobs],
            "finish": self.finish,
            "error": self.error,
            "ended": self.ended,
            "stats": self._stats(),
        }

    def _stats(self) -> dict[str, float | int]:
        """Seconds to the first text, seconds in all and, once the server has counted them, tokens."""
        if self._first is None:
            return {}
        stats: dict[str, float | int] = {"first_s": round(self._first - self._began, 3)}
        if self.usage is not None:
            took = self._last - self._first
            stats |= {"prompt_tokens": self.usage.prompt_tokens, "tokens": self.usage.completion_tokens}
            if self.usage.completion_tokens > 1 and took > 0:  # the first token's time is that of reading the prompt
                stats["tokens_per_s"] = round((self.usage.completion_tokens - 1) / took, 1)
        return stats


def _share(logprob: float) -> float:
    return round(math.exp(logprob), 4)
