"""Log probabilities in OpenAI's two formats: a list of tokens for chat, parallel lists for text completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nanochat.tokenizer import Tokenizer
from services.inference.text import ScoredToken

LEAST = -9999.0  # stands for minus infinity, which JSON cannot express


def chat_logprobs(scored: Sequence[ScoredToken], tokenizer: Tokenizer) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = tokenizer.bpe.token_bytes(token)
        return {"token": raw.decode(errors="replace"), "logprob": max(logprob, LEAST), "bytes": list(raw)}

    content = [
        {
            **entry(one.token, one.logprobs.token),
            "top_logprobs": [entry(token, logprob) for token, logprob in one.logprobs.top.items()],
        }
        for one in scored
        if one.logprobs is not None
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(scored: Sequence[ScoredToken], tokenizer: Tokenizer, offset: int) -> dict[str, Any]:
    """`offset`: the number of characters before the first of these tokens."""
    tokens = [_name(one.token, tokenizer) for one in scored]
    offsets = []
    for one in scored:
        offsets.append(offset)
        offset += len(tokenizer.bpe.token_bytes(one.token).decode(errors="ignore"))
    return {
        "tokens": tokens,
        "token_logprobs": [one.logprobs and max(one.logprobs.token, LEAST) for one in scored],
        "top_logprobs": [
            one.logprobs and {_name(token, tokenizer): max(p, LEAST) for token, p in one.logprobs.top.items()} for one in scored
        ],
        "text_offset": offsets,
    }


def _name(token: int, tokenizer: Tokenizer) -> str:
    r"""The token's text, or `bytes:\xe6\x97` for a part of a character: names must differ, since they are keys."""
    raw = tokenizer.bpe.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
