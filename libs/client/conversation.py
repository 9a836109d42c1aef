"""A conversation with a model: what was said, and one answer at a time."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from client.inference import Calculation, Inference, Message, Piece, ServedModel, Usage


class Answer(BaseModel):
    """The last answer, with what it took. `first_token_s` is the time until its first text."""

    model: str | None = None
    text: str = ""
    finish_reason: str | None = None
    calculations: list[Calculation] = []
    usage: Usage | None = None
    first_token_s: float | None = None
    seconds: float = 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Speed of the generation, without the wait for its first token; None if it is too short to tell."""
        if self.usage is None or self.first_token_s is None or self.usage.completion_tokens < 2:
            return None
        took = self.seconds - self.first_token_s
        return (self.usage.completion_tokens - 1) / took if took > 0 else None


@dataclass
class Conversation:
    """`model` None leaves the choice to the server. `sampling` is sent with each question."""

    inference: Inference
    model: str | None = None
    system: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    turns: list[Message] = field(default_factory=list)
    last: Answer = field(default_factory=Answer)

    def ask(self, question: str) -> Generator[Piece]:
        """The pieces of the answer. An answer that is stopped half-way is kept as far as it came; without one, or after an error, the
        question is forgotten. Raises ClientError."""
        self.turns.append({"role": "user", "content": question})
        began, texts, self.last = time.monotonic(), [], Answer(model=self.model)
        try:
            with closing(self.inference.pieces(self._messages(), self.model, **self.sampling)) as pieces:
                for piece in pieces:
                    self._note(piece, time.monotonic() - began)
                    texts.append(piece.text)
                    yield piece
        finally:
            self.last.text, self.last.seconds = "".join(texts), time.monotonic() - began
            if self.last.text or self.last.finish_reason:
                self.turns.append({"role": "assistant", "content": self.last.text})
            else:
                self.turns.pop()

    def take_back(self) -> str | None:
        """Forget the last answer and its question, which is returned; None if there is none."""
        if not self.turns:
            return None
        del self.turns[-1]
        return self.turns.pop()["content"]

    def choose(self, wanted: str) -> ServedModel | None:
        """Use the model of this id, or the newest one of the run of this name. None, and no change, if there is none."""
        for model in self.inference.served():
            if wanted in (model.id, model.run_name):
                self.model = model.id
                return model
        return None

    def uses(self, model: ServedModel) -> bool:
        """Whether the next answer is this model's."""
        return model.default if self.model is None else model.id == self.model

    def _messages(self) -> list[Message]:
        head: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.turns

    def _note(self, piece: Piece, at_s: float) -> None:
        if piece.text and self.last.first_token_s is None:
            self.last.first_token_s = at_s
        self.last.calculations += piece.calculations
        self.last.finish_reason = piece.finish_reason or self.last.finish_reason
        self.last.usage = piece.usage or self.last.usage
        self.last.model = piece.model or self.last.model
