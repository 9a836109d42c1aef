"""`Tokenizer`: the native encoder, plus saving, loading and conversion."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from rustbpe import _files, _huggingface, _rustbpe


class Tokenizer(_rustbpe.Tokenizer):
    """A byte-level BPE vocabulary with its split pattern and special tokens.

    `mergeable_ranks` is either a mapping of token bytes to the ranks 0 to n - 1, or the
    tokens in order of rank. It must contain all 256 single bytes. Special tokens get the
    ids after the mergeable tokens, in order. A tokenizer is immutable and thread-safe.

    Raises ValueError if a rank is missing, duplicate or out of range, if a single byte is
    missing, if a special token is named twice, or if the pattern does not compile or can
    match the empty string.
    """

    def with_special_tokens(self, names: Sequence[str]) -> Self:
        """A tokenizer of the same vocabulary, but with these special tokens instead of its own."""
        return type(self)(self._tokens(), pattern=self.pattern, special_tokens=names)

    def encode_to_numpy(
        self, texts: Sequence[str], *, bos: int | None = None, num_threads: int = 0
    ) -> tuple[NDArray[np.uint16] | NDArray[np.uint32], NDArray[np.int64]]:
        """The ids of all texts end to end, with `bos` before each text, and where each text starts.

        Ids are uint16 if `vocab_size` <= 65,536, else uint32. Text `i` is
        `ids[offsets[i]:offsets[i + 1]]`, so there is one more offset than texts. `num_threads`
        of 0 means one per processor.

        Raises ValueError if `bos` is out of range.
        """
        ids, offsets = self._encode_flat(texts, bos, num_threads)
        starts = np.frombuffer(offsets, np.int64)
        if self.vocab_size <= 1 << 16:
            return np.frombuffer(ids, np.uint16), starts
        return np.frombuffer(ids, np.uint32), starts

    def save(self, path: str | Path) -> None:
        """Write one JSON file with a checksum, atomically: `path` never holds a partial file."""
        _files.write_atomically(path, _files.dump(self._tokens(), self.pattern, list(self.special_tokens)))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file that `save` wrote. Raises ValueError, naming the file, if it is damaged."""
        tokens, pattern, specials = _files.parse(path)
        return cls(tokens, pattern=pattern, special_tokens=specials)

    def save_tiktoken(self, path: str | Path) -> None:
        """Write the mergeable tokens as a tiktoken rank file.

        The format cannot store the pattern and the special tokens.
        """
        _files.write_atomically(path, _files.dump_tiktoken(self._tokens()))

    @classmethod
    def from_tiktoken(
        cls,
        path: str | Path,
        pattern: str = _rustbpe.SPLIT_PATTERN,
        special_tokens: Sequence[str] = (),
    ) -> Self:
        """Read a tiktoken rank file. Raises ValueError, naming the line, if it is damaged."""
        ranks = _files.parse_tiktoken(path)
        return cls(ranks, pattern=pattern, special_tokens=special_tokens)

    def to_hf_json(self) -> str:
        """The `tokenizer.json` with which Hugging Face `tokenizers` produces the same ids."""
        return _huggingface.dump(self)

    @classmethod
    def from_hf_json(cls, text: str) -> Self:
        """Read a byte-level BPE `tokenizer.json`.

        Raises ValueError if it is of another kind, or if its merges are not those that the
        ranks of its vocabulary imply, because ids could then differ.
        """
        parsed = _huggingface.parse(text)
        tokenizer = cls(parsed.tokens, pattern=parsed.pattern, special_tokens=parsed.special_tokens)
        _huggingface.check_merges(tokenizer, parsed.merges, whole_chunks=parsed.ignore_merges)
        return tokenizer

    def __reduce__(self) -> tuple[object, ...]:
        """Lets a tokenizer be sent to worker processes. Files never contain pickles."""
        return _rebuild, (type(self), self._tokens(), self.pattern, list(self.special_tokens))


def _rebuild(kind: type[Tokenizer], tokens: list[bytes], pattern: str, specials: list[str]) -> Tokenizer:
    return kind(tokens, pattern=pattern, special_tokens=specials)
