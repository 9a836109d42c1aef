"""The tokens of a prompt: conversations as the model was trained on them, plain text, and what is left out if it is too long."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from nanochat.tokenizer import Tokenizer
from services.inference.errors import ApiError
from services.inference.schemas.messages import ChatMessage, MessagesBody, turns
from services.inference.schemas.sampling import SamplingParams

T = TypeVar("T")
P = ParamSpec("P")

INLINE_CHARS = (
    8_000  # read in 0.3 ms at most; passing it to a thread and back takes 0.02 ms, and far longer while all cores are busy
)


async def beside(chars: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make tokens out of a text of so many characters: beside the event loop if the text is long."""
    return work(*args, **kwargs) if chars <= INLINE_CHARS else await asyncio.to_thread(work, *args, **kwargs)


def chat_prompt(body: MessagesBody, tokenizer: Tokenizer, keep: int | None = None) -> list[int]:
    """The conversation up to the point where the answer begins.

    If it has more than `keep` tokens, the oldest turns are left out, but not the system messages before them; then the
    beginning of the last turn. Raises ApiError 400 if `keep` is too small for a single token of text.
    """
    tokens = _rendered(body.messages, body, tokenizer)
    if keep is None or len(tokens) <= keep:
        return tokens
    lead = next((i for i, m in enumerate(body.messages) if m.role in ("user", "assistant")), 0)
    system, talk = body.messages[:lead], body.messages[lead:]
    starts = [i for i, m in enumerate(talk) if m.role != "assistant" and (i == 0 or talk[i - 1].role == "assistant")] or [0]

    def after(start: int) -> list[int]:
        return _rendered([*system, *talk[start:]], body, tokenizer)

    fit = bisect_left(starts, True, key=lambda start: len(after(start)) <= keep)
    return after(starts[fit]) if fit < len(starts) else _cut(after(starts[-1]), tokenizer, keep)


def text_prompt(text: str, tokenizer: Tokenizer) -> list[int]:
    """A text as a document begins in training: with `<|bos|>`."""
    return [tokenizer.bos, *tokenizer.encode(text)]


def truncated(tokens: Sequence[int], tokenizer: Tokenizer, keep: int | None) -> list[int]:
    """The last `keep` tokens. A leading `<|bos|>` stays."""
    if keep is None or len(tokens) <= keep:
        return list(tokens)
    if tokens[0] == tokenizer.bos and keep > 1:
        return [tokenizer.bos, *tokens[len(tokens) - keep + 1 :]]
    return list(tokens[len(tokens) - keep :])


def kept(params: SamplingParams, context: int) -> int | None:
    """The most tokens that the prompt may keep, or None if the request does not ask for truncation."""
    asked = params.truncate_prompt_tokens
    if asked is None:
        return None
    if asked > 0:
        return asked
    return context - min(params.answer_tokens or context // 4, context // 2)


def check_room(tokens: Sequence[int], context: int, param: str) -> int:
    """The room for the answer, in tokens. Raises ApiError 400 if there is none."""
    room = context - len(tokens)
    if room < 1:
        raise ApiError(
            400,
            f"{param}: the prompt has {len(tokens)} tokens and the model's context is {context}, so there is no room for an answer."
            " Shorten the prompt, or set truncate_prompt_tokens to -1 to leave out its oldest part.",
            param=param,
            code="context_length_exceeded",
        )
    return room


def check_token_ids(tokens: Sequence[int], vocabulary: int, param: str) -> None:
    """Raises ApiError 400 for a token outside the vocabulary."""
    strange = next((token for token in tokens if not 0 <= token < vocabulary), None)
    if strange is not None:
        raise ApiError(
            400,
            f"{param}: token {strange} is outside the model's vocabulary, 0 to {vocabulary - 1}.",
            param=param,
            code="invalid_value",
        )


def _rendered(messages: Sequence[ChatMessage], body: MessagesBody, tokenizer: Tokenizer) -> list[int]:
    tokens, _ = tokenizer.render({"messages": turns(messages)})
    if body.continue_final_message:
        return tokens[:-1]  # without the <|assistant_end|> of the message that goes on
    return [*tokens, tokenizer.special("<|assistant_start|>")] if body.begins_turn else tokens


def _cut(tokens: list[int], tokenizer: Tokenizer, keep: int) -> list[int]:
    """Leave out the beginning of the user's text in a conversation of one turn: <|bos|> <|user_start|> text <|user_end|> …"""
    over, text = len(tokens) - keep, tokens.index(tokenizer.special("<|user_end|>")) - 2
    if over >= text:
        raise ApiError(
            400,
            f"truncate_prompt_tokens: {keep} tokens cannot hold the last turn; it needs at least {len(tokens) - text + 1}.",
            param="truncate_prompt_tokens",
            code="invalid_value",
        )
    return [*tokens[:2], *tokens[2 + over :]]
