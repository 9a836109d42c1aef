"""A conversation as a model reads it: its tokens, and which of them are trained. The data of `nanochat inspect`."""

from __future__ import annotations

from itertools import groupby

from pydantic import BaseModel, Field

from nanochat.config.data_spec import SPECIAL_TOKENS
from nanochat.tasks.base import Conversation
from nanochat.tokenizer import Tokenizer


class Token(BaseModel, frozen=True):
    id: int
    text: str = Field(description="Its text; U+FFFD stands for part of a character.")
    trained: bool = Field(description="Whether SFT learns it. Midtraining learns every token.")
    special: bool = Field(description="Whether it is a special token, as <|bos|>.")


class Span(BaseModel, frozen=True):
    """Neighbouring tokens that are alike. Their text is decoded together, so that no character is broken."""

    text: str
    tokens: int
    trained: bool
    special: bool


class Rendered(BaseModel, frozen=True):
    """One conversation. `tokens` are those that a context keeps."""

    source: str = Field(description="The file or the task.")
    place: str = Field(description="Line or row.")
    tokens: list[Token]
    spans: list[Span]
    trained: int = Field(description="How many of the tokens SFT learns.")
    cut: int = Field(description="Tokens after the context, which are left out.")


def rendered(conversation: Conversation, tokenizer: Tokenizer, context: int, *, source: str = "", place: str = "") -> Rendered:
    """Render a conversation as SFT does. Raises ValueError when its roles do not alternate."""
    ids, mask = tokenizer.render(conversation)
    special = {tokenizer.special(name) for name in SPECIAL_TOKENS}
    kept = [
        Token(id=token, text=tokenizer.decode([token]), trained=bool(trained), special=token in special)
        for token, trained in zip(ids[:context], mask[:context], strict=True)
    ]
    spans = []
    for (trained, is_special), group in groupby(kept, key=lambda token: (token.trained, token.special)):
        alike = list(group)
        text = tokenizer.decode([token.id for token in alike])
        spans.append(Span(text=text, tokens=len(alike), trained=trained, special=is_special))
    return Rendered(
        source=source,
        place=place,
        tokens=kept,
        spans=spans,
        trained=sum(token.trained for token in kept),
        cut=max(0, len(ids) - context),
    )
