"""The blocks of the KV cache: who holds which, which can be reused for a prompt seen before, which are free.

A block holds `size` positions of one sequence. A full block is known by its tokens and all tokens before it, so a later prompt
that begins alike shares it instead of computing it again (as vLLM's prefix cache does). Blocks that nobody holds keep their
content until they are needed; the one unused for longest goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

Key = tuple[int, tuple[int, ...]]  # the serial number of the prefix before the block (0: none) and the block's own tokens


class OutOfBlocks(Exception):
    """Every block is held by a row."""


class Blocks:
    """`count` blocks of `size` positions. Held blocks are counted by reference; the free ones are reused oldest first."""

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size
        self._refs = [0] * count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._key_of: dict[int, Key] = {}
        self._by_key: dict[Key, int] = {}
        # Every prefix that was ever remembered has a number of its own. A block's number would not do: once the block is
        # reused, it would stand for another prefix, and what followed the old one would be found after the new one.
        self._serial_of: dict[int, int] = {}
        self._serials = 0

    @property
    def free(self) -> int:
        return len(self._free)

    def needed(self, tokens: int) -> int:
        """Blocks that so many positions take."""
        return -(-tokens // self.size)

    def take(self) -> int:
        """A block of one's own, its old content forgotten. Raises OutOfBlocks."""
        if not self._free:
            raise OutOfBlocks
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._refs[block] = 1
        return block

    def share(self, blocks: Sequence[int]) -> None:
        """Hold blocks that somebody else made, free ones included."""
        for block in blocks:
            self._refs[block] += 1
            self._free.pop(block, None)

    def release(self, blocks: Sequence[int]) -> None:
        """Let go of blocks. The last ones of a sequence are reused first: the first ones are the likeliest to be shared."""
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free[block] = None

    def shared(self, block: int) -> bool:
        return self._refs[block] > 1

    def remember(self, blocks: Sequence[int], tokens: Sequence[int], cached: int) -> None:
        """Make the full blocks among the first `cached` positions known by their tokens."""
        before = 0
        for at in range(cached // self.size):
            block = blocks[at]
            if block not in self._key_of:
                key = (before, tuple(tokens[at * self.size : (at + 1) * self.size]))
                known = self._by_key.get(key)
                if known is None:
                    self._serials += 1
                    self._key_of[block], self._by_key[key], self._serial_of[block] = key, block, self._serials
                else:  # two rows computed the same block; the first one stays known
                    block = known
            before = self._serial_of[block]

    def find(self, tokens: Sequence[int]) -> list[int]:
        """Known blocks that hold the beginning of `tokens`: the longest run of them."""
        found: list[int] = []
        before = 0
        for at in range(len(tokens) // self.size):
            block = self._by_key.get((before, tuple(tokens[at * self.size : (at + 1) * self.size])))
            if block is None:
                break
            found.append(block)
            before = self._serial_of[block]
        return found

    def forget_all(self) -> None:
        """Know no prefix any more: the weights that made them have changed."""
        self._key_of.clear()
        self._by_key.clear()
        self._serial_of.clear()

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._by_key[key], self._serial_of[block]
