"""Encode text as token ids and back, and render conversations as ids with a loss mask.

This is byte-level BPE by `rustbpe`. The ids of the nine special tokens follow those of the ordinary tokens, in the order of
`recipe.SPECIAL_TOKENS`. Text is always encoded as ordinary text: the name of a special token in it never becomes its id.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

import rustbpe
from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation, Message

FILE = "tokenizer.json"
TOKEN_BYTES = "token_bytes.npy"


class _Add(Protocol):
    def __call__(self, tokens: list[int], trained: bool) -> None: ...


class Tokenizer:
    """A trained tokenizer with its special tokens. It is immutable, so threads may share it."""

    def __init__(self, bpe: rustbpe.Tokenizer):
        self.bpe = bpe
        self.vocab_size: int = bpe.vocab_size
        self._special = {name: bpe.special_tokens[name] for name in SPECIAL_TOKENS}
        self.bos: int = self._special["<|bos|>"]

    @classmethod
    def from_merges(cls, trained: rustbpe.Tokenizer) -> Tokenizer:
        """Add the special tokens to a newly trained BPE, after its last id."""
        return cls(trained.with_special_tokens(list(SPECIAL_TOKENS)))

    @classmethod
    def load(cls, directory: Path) -> Tokenizer:
        """Load the tokenizer saved in `directory`. Raises StageError when it is missing or damaged."""
        try:
            return cls(rustbpe.Tokenizer.load(str(directory / FILE)))
        except (OSError, ValueError, KeyError) as err:
            raise StageError(
                f"cannot load the tokenizer {directory / FILE}: {err}",
                code="tokenizer_corrupt",
                hint="rerun the tok_train stage",
            ) from err

    def save(self, directory: Path) -> None:
        """Write `tokenizer.json` and `token_bytes.npy`, which holds `token_bytes()`."""
        directory.mkdir(parents=True, exist_ok=True)
        self.bpe.save(str(directory / FILE))
        np.save(directory / TOKEN_BYTES, self.token_bytes(), allow_pickle=False)

    # -- text --

    def special(self, name: str) -> int:
        """The id of a special token by its name in `recipe.SPECIAL_TOKENS`. Raises KeyError for any other name."""
        return self._special[name]

    def encode(self, text: str) -> list[int]:
        return self.bpe.encode(text)

    def encode_batch(self, texts: Sequence[str], num_threads: int = 0) -> list[list[int]]:
        """Return the ids of each text. `num_threads` 0 means one thread per core."""
        return self.bpe.encode_batch(list(texts), num_threads=num_threads)

    def encode_documents(self, texts: Sequence[str], num_threads: int = 0) -> np.ndarray:
        """Return the ids of all documents as one array, (tokens,) uint16 or uint32, with a `<|bos|>` before each document."""
        ids, _ = self.bpe.encode_to_numpy(list(texts), bos=self.bos, num_threads=num_threads)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`. Bytes that are not UTF-8 become U+FFFD; special tokens appear by name."""
        return self.bpe.decode(list(ids), errors="replace")

    def stream_decoder(self) -> rustbpe.StreamDecoder:
        """A decoder for one id at a time. `.push(id)` returns the text that is complete by now, `.finish()` the rest.

        No part of a character is returned before the whole character is known.
        """
        return self.bpe.stream_decoder()

    def token_bytes(self) -> np.ndarray:
        """The number of raw bytes of each token, (vocab,) int32; 0 for special tokens.

        These are not the bytes of the decoded string: a token may be part of a character, which decodes to the three bytes of
        U+FFFD.
        """
        lengths = np.array([len(self.bpe.token_bytes(i)) for i in range(self.vocab_size)], dtype=np.int32)
        lengths[list(self._special.values())] = 0
        return lengths

    # -- conversations --

    def render(self, conversation: Conversation, max_tokens: int = sys.maxsize) -> tuple[list[int], list[int]]:
        """Render a conversation as (ids, mask), both cut to the first `max_tokens`. The mask is 1 for tokens to learn.

        The assistant learns its own text, its tool calls including their end token, and its end of turn. It does not learn the
        user's messages, the output of tools, or an answer whose `weight` is 0. Raises ValueError when the roles do not alternate or a content has a wrong type.
        """
        ids, mask = [self.bos], [0]

        def add(tokens: list[int], trained: bool) -> None:
            ids.extend(tokens)
            mask.extend([int(trained)] * len(tokens))

        for position, message in enumerate(_merged(conversation)):
            if position % 2 == 0:
                add([self._special["<|user_start|>"], *self.encode(_plain_text(message, position))], trained=False)
                add([self._special["<|user_end|>"]], trained=False)
            else:
                add([self._special["<|assistant_start|>"]], trained=False)
                learned = message.get("weight", 1) != 0
                self._assistant(message, position, learned, add)
                add([self._special["<|assistant_end|>"]], trained=learned)
            if len(ids) >= max_tokens:
                break
        return ids[:max_tokens], mask[:max_tokens]

    def render_for_completion(self, conversation: Conversation) -> list[int]:
        """Render a conversation up to the `<|assistant_start|>` of the answer. A final assistant message is left out.

        Raises ValueError as `render` does, and when there is no user message to answer.
        """
        messages = conversation["messages"]
        if messages and messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if not messages or messages[-1]["role"] != "user":
            raise ValueError("a conversation to complete must have a user message to answer")
        ids, _ = self.render({"messages": messages})
        return [*ids, self._special["<|assistant_start|>"]]

    def _assistant(self, message: Message, position: int, learned: bool, add: _Add) -> None:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            tokens = self.encode(part["text"])
            if part["type"] == "text":
                add(tokens, trained=learned)
            elif part["type"] == "python":
                add([self._special["<|python_start|>"], *tokens, self._special["<|python_end|>"]], trained=learned)
            elif part["type"] == "python_output":
                add([self._special["<|output_start|>"], *tokens, self._special["<|output_end|>"]], trained=False)
            else:
                raise ValueError(f"message {position} has a part of unknown type {part['type']!r}")


def _merged(conversation: Conversation) -> list[Message]:
    """Return the messages, with a leading system message merged into the user message after it. Does not change the original.

    Raises ValueError when the roles do not alternate.
    """
    messages = conversation["messages"]
    if not messages:
        raise ValueError("a conversation must have at least one message")
    if messages[0]["role"] == "system":
        if len(messages) < 2 or messages[1]["role"] != "user":
            raise ValueError("a system message must be followed by a user message")
        first: Message = {"role": "user", "content": f"{_plain_text(messages[0], 0)}\n\n{_plain_text(messages[1], 1)}"}
        messages = [first, *messages[2:]]
    for position, message in enumerate(messages):
        wanted = "assistant" if position % 2 else "user"
        if message["role"] != wanted:
            raise ValueError(f"message {position} is from {message['role']!r}; it must be from {wanted!r}: roles alternate")
    return messages


def _plain_text(message: Message, position: int) -> str:
    if not isinstance(message["content"], str):
        raise ValueError(f"message {position} is from the {message['role']}; its content must be a string")
    return message["content"]
