"""The blocks of the cache: they are held, shared, remembered and reused, and none is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.engine.blocks import Blocks, OutOfBlocks

SIZE = 4


def test_a_known_beginning_is_found_in_whole_blocks():
    blocks = Blocks(8, SIZE)
    held = [blocks.take() for _ in range(3)]
    blocks.remember(held, list(range(11)), cached=11)
    assert blocks.find(list(range(11))) == held[:2]
    assert blocks.find([*range(8), 99, 99, 99, 99]) == held[:2]
    assert blocks.find([*range(4), 99, 99, 99, 99]) == held[:1]
    assert blocks.find([99, *range(1, 8)]) == []


def test_released_blocks_are_still_known_until_they_are_needed_oldest_first():
    blocks = Blocks(4, SIZE)
    first, second = [blocks.take()], [blocks.take()]
    blocks.remember(first, [1] * SIZE, SIZE)
    blocks.remember(second, [2] * SIZE, SIZE)
    blocks.release(first)
    blocks.release(second)
    assert blocks.free == 4
    taken = [blocks.take() for _ in range(3)]  # first two that were never used, then the oldest
    assert first[0] in taken
    assert blocks.find([1] * SIZE) == []
    assert blocks.find([2] * SIZE) == second


def test_what_followed_a_reused_block_is_not_found_after_its_new_content():
    blocks = Blocks(2, SIZE)
    held = [blocks.take(), blocks.take()]
    blocks.remember(held, [1] * SIZE + [2] * SIZE, 2 * SIZE)
    blocks.release(held[:1])
    again = blocks.take()
    assert again == held[0]
    blocks.remember([again], [7] * SIZE, SIZE)
    assert blocks.find([7] * SIZE + [2] * SIZE) == [again]


def test_nothing_is_taken_when_all_are_held():
    blocks = Blocks(1, SIZE)
    held = [blocks.take()]
    with pytest.raises(OutOfBlocks):
        blocks.take()
    blocks.release(held)
    assert blocks.take() == held[0]


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 1), min_size=0, max_size=14)), max_size=60))
def test_any_history_keeps_every_block_and_never_mixes_prefixes(history):
    """Sequences come and go. Each holds the blocks that `find` returned and takes the others. A model tracks their content."""
    blocks, content, running = Blocks(10, SIZE), {}, []
    for action, tokens in history:
        if action == 0 and running:
            blocks.release(running.pop(0))
            continue
        known = blocks.find(tokens)
        for at, block in enumerate(known):  # found blocks hold exactly these tokens after exactly those before
            assert content[block] == tuple(tokens[: (at + 1) * SIZE])
        blocks.share(known)
        held = list(known)
        try:
            while len(held) < blocks.needed(len(tokens)):
                held.append(blocks.take())
        except OutOfBlocks:
            blocks.release(held)
            continue
        for at in range(len(known), len(held)):
            content[held[at]] = tuple(tokens[: (at + 1) * SIZE])
        blocks.remember(held, tokens, len(tokens))
        running.append(held)
    for held in running:
        blocks.release(held)
    assert blocks.free == blocks.count
