"""Manage the blocks of the KV cache: which rows hold them, which are free, and which hold the beginning of a known prompt.

A block holds `size` positions of one sequence. A full block is identified by its tokens and all tokens before it. A later
prompt with the same beginning shares the block instead of computing it again, as in the prefix cache of vLLM. Free blocks keep
their content until they are needed; the one that has been unused for longest is reused first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

Key = tuple[int, tuple[int, ...]]  # (serial number of the prefix before the block, 0 if there is none; tokens of the block)


class OutOfBlocks(Exception):
    """Rows hold all blocks."""


class Blocks:
    """`count` blocks of `size` positions. Holders of a block are counted. Free blocks are reused in the order of release."""

    def __init__(self, count: int, size: int):
        self.count, self.size = count, size
        self._refs = [0] * count
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self._key_of: dict[int, Key] = {}
        self._by_key: dict[Key, int] = {}
        # Every remembered prefix gets its own serial number. The number of its last block would not be enough: once that block
        # is reused for another prefix, `find` would take the successors of the old prefix for those of the new one.
        self._serial_of: dict[int, int] = {}
        self._serials = 0

    @property
    def free(self) -> int:
        return len(self._free)

    def needed(self, tokens: int) -> int:
        """The number of blocks for `tokens` positions."""
        return -(-tokens // self.size)

    def take(self) -> int:
        """Take a free block for exclusive use and forget its old content. Raises OutOfBlocks."""
        if not self._free:
            raise OutOfBlocks
        block, _ = self._free.popitem(last=False)
        self._forget(block)
        self._refs[block] = 1
        return block

    def share(self, blocks: Sequence[int]) -> None:
        """Hold blocks that another row has filled. They may be free or held by others."""
        for block in blocks:
            self._refs[block] += 1
            self._free.pop(block, None)

    def release(self, blocks: Sequence[int]) -> None:
        """Release the blocks of a sequence. Its last blocks are reused first, because the first ones are more often shared."""
        for block in reversed(blocks):
            self._refs[block] -= 1
            if self._refs[block] == 0:
                self._free[block] = None

    def shared(self, block: int) -> bool:
        return self._refs[block] > 1

    def remember(self, blocks: Sequence[int], tokens: Sequence[int], cached: int) -> None:
        """Make the full blocks among the first `cached` positions findable by their tokens."""
        before = 0
        for at in range(cached // self.size):
            block = blocks[at]
            if block not in self._key_of:
                key = (before, tuple(tokens[at * self.size : (at + 1) * self.size]))
                known = self._by_key.get(key)
                if known is None:
                    self._serials += 1
                    self._key_of[block], self._by_key[key], self._serial_of[block] = key, block, self._serials
                else:  # two rows computed the same block: `find` keeps returning the first one
                    block = known
            before = self._serial_of[block]

    def find(self, tokens: Sequence[int]) -> list[int]:
        """Return the longest run of remembered blocks that holds the beginning of `tokens`."""
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
        """Forget all prefixes, because the weights with which they were computed have changed."""
        self._key_of.clear()
        self._by_key.clear()
        self._serial_of.clear()

    def _forget(self, block: int) -> None:
        key = self._key_of.pop(block, None)
        if key is not None:
            del self._by_key[key], self._serial_of[block]
