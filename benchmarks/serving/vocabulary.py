"""A sealed tokenizer whose every likely token is printable ASCII.

So each token is sent as soon as it is made: text that could be part of a longer character would be held back.
"""

from __future__ import annotations

import itertools
import string
from pathlib import Path

import rustbpe
from nanochat.config.recipe import SPECIAL_TOKENS
from nanochat.contract.contract import seal
from nanochat.tokenizer import Tokenizer

PRINTABLE = (string.ascii_letters + string.digits + string.punctuation).encode()


def write_tokenizer(folder: Path, vocab_size: int) -> tuple[int, int]:
    """Write it. Returns the bounds of the ids that answers and prompts consist of."""
    size = vocab_size - len(SPECIAL_TOKENS)
    longer = (bytes(parts) for length in (2, 3) for parts in itertools.product(PRINTABLE, repeat=length))
    ranks = [*(bytes([byte]) for byte in range(256)), *itertools.islice(longer, size - 256)]
    Tokenizer.from_merges(rustbpe.Tokenizer(ranks)).save(folder)
    seal(folder)
    return 256, size
