"""`Tokenizer`: the native encoder with persistence and exchange formats."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rustbpe import _files, _huggingface, _rustbpe


class Tokenizer(_rustbpe.Tokenizer):
    """A byte-level BPE vocabulary with its split pattern and special tokens.

    `mergeable_ranks` is a mapping of token bytes to ranks 0..n-1 or the tokens in
    rank order; all 256 single bytes must be among them. Special tokens get the ids
    after the mergeable ones, in order. Immutable, and safe to use from many threads.

    Raises ValueError when ranks are missing, given twice or out of range, when a
    single byte is missing, a special token is named twice, or the pattern does not
    compile or can match the empty string.
    """

    def with_special_tokens(self, names: Sequence[str]) -> Self:
        """The same vocabulary with these special tokens instead of its own."""
        return type(self)(self._tokens(), pattern=self.pattern, special_tokens=names)

    def encode_to_numpy(
        self, texts: Sequence[str], *, bos: int | None = None, num_threads: int = 0
    ) -> tuple[NDArray[np.uint16] | NDArray[np.uint32], NDArray[np.int64]]:
        """Ids of all texts end to end, `bos` before each, and where each text starts.

        Ids are uint16 while `vocab_size` <= 65,536, else uint32. Text `i` is
        `ids[offsets[i]:offsets[i + 1]]`; there is one offset more than texts.

        Raises ValueError when `bos` is out of range.
        """
        ids, offsets = self._encode_flat(texts, bos, num_threads)
        starts = np.frombuffer(offsets, np.int64)
        if self.vocab_size <= 1 << 16:
            return np.frombuffer(ids, np.uint16), starts
        return np.frombuffer(ids, np.uint32), starts

    def save(self, path: str | Path) -> None:
        """Write one JSON file with a checksum; `path` never holds a partial file."""
        _files.write_atomically(path, _files.dump(self._tokens(), self.pattern, list(self.special_tokens)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; ValueError naming the file when it is damaged."""
        tokens, pattern, specials = _files.parse(path)
        return cls(tokens, pattern=pattern, special_tokens=specials)

    def save_tiktoken(self, path: str | Path) -> None:
        """Write the mergeable tokens as a tiktoken rank file.

        That format has no place for the pattern and the special tokens.
        """
        _files.write_atomically(path, _files.dump_tiktoken(self._tokens()))

    @classmethod
    def from_tiktoken(
        cls,
        path: str | Path,
        pattern: str = _rustbpe.SPLIT_PATTERN,
        special_tokens: Sequence[str] = (),
    ) -> Self:
        """Read a tiktoken rank file; ValueError naming the line when it is damaged."""
        ranks = _files.parse_tiktoken(path)
        return cls(ranks, pattern=pattern, special_tokens=special_tokens)

    def to_hf_json(self) -> str:
        """A `tokenizer.json` that Hugging Face `tokenizers` turns into the same ids."""
        return _huggingface.dump(self)

    @classmethod
    def from_hf_json(cls, text: str) -> Self:
        """Read a byte-level BPE `tokenizer.json`.

        Raises ValueError when it is of another kind or when its merges are not those
        that the ranks of its vocabulary imply, so that ids could differ.
        """
        parsed = _huggingface.parse(text)
        tokenizer = cls(parsed.tokens, pattern=parsed.pattern, special_tokens=parsed.special_tokens)
        _huggingface.check_merges(tokenizer, parsed.merges, whole_chunks=parsed.ignore_merges)
        return tokenizer

    def __reduce__(self) -> tuple[object, ...]:
        """Lets worker processes receive a tokenizer; files never use this."""
        return _rebuild, (type(self), self._tokens(), self.pattern, list(self.special_tokens))


def _rebuild(kind: type[Tokenizer], tokens: list[bytes], pattern: str, specials: list[str]) -> Tokenizer:
    return kind(tokens, pattern=pattern, special_tokens=specials)
