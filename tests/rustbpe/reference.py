"""Reference implementation of training: slow, but obviously correct. Recounts every pair before every merge."""

import itertools
from collections import Counter
from collections.abc import Iterable

import regex

Pair = tuple[int, int]


def train(texts: Iterable[str], vocab_size: int, pattern: str) -> list[bytes]:
    """Tokens in order of ids: the 256 bytes, then one per merge. Fewer than asked if no pair is left."""
    chunks = Counter(chunk for text in texts for chunk in regex.findall(pattern, text))
    words = [(list(chunk.encode()), count) for chunk, count in chunks.items()]
    tokens = [bytes([byte]) for byte in range(256)]
    while len(tokens) < vocab_size:
        pairs: Counter[Pair] = Counter()
        for symbols, count in words:
            for pair in itertools.pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        for symbols, _ in words:
            _replace(symbols, best, len(tokens))
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return tokens


def _replace(symbols: list[int], pair: Pair, merged: int) -> None:
    at = 0
    while at + 1 < len(symbols):
        if (symbols[at], symbols[at + 1]) == pair:
            symbols[at : at + 2] = [merged]
        at += 1
