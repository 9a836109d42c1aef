"""The token queue and padded rows."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.data.packing import TokenQueue, by_length, join, pad_rows, shift


@given(
    segments=st.lists(st.lists(st.integers(0, 65_535), max_size=9), max_size=12),
    counts=st.lists(st.integers(1, 7), max_size=20),
)
def test_the_queue_hands_out_what_was_pushed_in_order(segments: list[list[int]], counts: list[int]) -> None:
    queue: TokenQueue[int] = TokenQueue()
    for place, segment in enumerate(segments):
        queue.push(place, np.array(segment, dtype=np.uint16))
    everything = [(place, offset) for place, segment in enumerate(segments) for offset in range(len(segment))]
    out: list[int] = []
    for count in counts:
        assert len(queue) == len(everything) - len(out)
        if count > len(queue):
            with pytest.raises(IndexError):
                queue.pop(count)
            return
        assert queue.head() == everything[len(out)]
        out += queue.pop(count).tolist()
        assert out == [segments[place][offset] for place, offset in everything[: len(out)]]


def test_targets_are_the_inputs_shifted_by_one() -> None:
    inputs, targets = shift(np.arange(13), 3, 4)
    assert inputs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (targets == inputs + 1).all()
    assert inputs.dtype == targets.dtype == torch.int64


def test_padded_rows_mask_what_is_not_trained() -> None:
    inputs, targets = pad_rows([([1, 2, 3, 4], [0, 0, 1, 1]), ([1, 5], [0, 1])], pad=9)
    assert inputs.tolist() == [[1, 2, 3], [1, 9, 9]]
    assert targets.tolist() == [[-1, 3, 4], [5, -1, -1]]


def test_padded_rows_end_at_a_multiple() -> None:
    inputs, targets = pad_rows([([1, 2, 3, 4], [0, 0, 1, 1]), ([1, 5], [0, 1])], pad=9, multiple=4)
    assert inputs.tolist() == [[1, 2, 3, 9], [1, 9, 9, 9]]
    assert targets.tolist() == [[-1, 3, 4, -1], [5, -1, -1, -1]]


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 30)), max_size=20), st.integers(1, 100))
def test_groups_by_length_hold_everything_once_and_keep_to_the_limit(shapes: list[tuple[int, int]], limit: int) -> None:
    groups = list(by_length(shapes, lambda shape: shape, limit))
    placed = [shape for group in groups for shape in group]
    assert sorted(placed) == sorted(shapes)
    assert [length for _, length in placed] == sorted((length for _, length in shapes), reverse=True)
    for group in groups:
        assert len(group) == 1 or sum(rows for rows, _ in group) * group[0][1] <= limit
    for group, after in pairwise(groups):  # no group could have taken the next item too
        assert (sum(rows for rows, _ in group) + after[0][0]) * group[0][1] > limit


def test_joined_batches_keep_their_rows_and_targets() -> None:
    first, second = (torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])), (torch.tensor([[5], [6]]), torch.tensor([[7], [8]]))
    inputs, targets = join([first, second])
    assert inputs.shape == (3, 3)
    assert inputs[:, 0].tolist() == [1, 5, 6]
    assert targets.tolist() == [[2, 3, 4], [7, -1, -1], [8, -1, -1]]
