"""Best-fit packing: every row is full and begins with a document, every document comes once per epoch, resuming is exact."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nanochat.contract.contract import StageError
from nanochat.data import bos_aligned
from nanochat.data.bos_aligned import BosAlignedLoader, cropped_pct, places_in, ranges
from nanochat.data.loader import TextLoader
from nanochat.data.packing import BestFit
from nanochat.tokenizer import Tokenizer

GROUP = 6  # documents per row group: 24 or 108 documents divide evenly among up to three ranks
HEAD = 4  # tokens that identify a document: `<|bos|>` and the three bytes of its first character


def corpus(folder: Path, lengths: list[int]) -> list[Path]:
    """Write two shards with six documents per row group. Document i is a character that no other has, then letters."""
    texts = [chr(0x4E00 + i) + "q" * length for i, length in enumerate(lengths)]
    half = len(texts) // (2 * GROUP) * GROUP
    paths = [folder / "shard_00000.parquet", folder / "shard_00001.parquet"]
    for path, part in zip(paths, (texts[:half], texts[half:]), strict=True):
        pq.write_table(pa.table({"text": pa.array(part, pa.string())}), path, row_group_size=GROUP)
    return paths


def rows_of(loader: BosAlignedLoader | TextLoader, batches: int) -> list[list[int]]:
    """The rows of T + 1 tokens in the next `batches` batches."""
    rows: list[list[int]] = []
    for _ in range(batches):
        inputs, targets = loader.next_batch()
        assert inputs.is_contiguous()
        assert targets.is_contiguous()
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        rows += [[*a, b[-1]] for a, b in zip(inputs.tolist(), targets.tolist(), strict=True)]
    return rows


def pieces(rows: list[list[int]], bos: int) -> list[tuple[int, ...]]:
    """The parts of the rows: whole documents, or beginnings of documents."""
    out: list[list[int]] = []
    for row in rows:
        for token in row:
            if token == bos:
                out.append([])
            out[-1].append(token)
    return [tuple(piece) for piece in out]


@pytest.fixture(params=[1, 5, 1000])
def buffer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(bos_aligned, "BUFFER", request.param)
    return int(request.param)


PROPERTY = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


@PROPERTY
@given(
    lengths=st.lists(st.integers(0, 60), min_size=24, max_size=24) | st.lists(st.integers(0, 9), min_size=108, max_size=108),
    seq_len=st.integers(1, 40),
    world=st.integers(1, 3),
    shuffle=st.booleans(),
)
@example(lengths=[50] * 24, seq_len=3, world=3, shuffle=False)
def test_every_row_begins_a_document_and_every_document_comes_once_an_epoch(
    buffer: int, tokenizer: Tokenizer, tmp_path: Path, lengths: list[int], seq_len: int, world: int, shuffle: bool
) -> None:
    paths = corpus(tmp_path, lengths)
    whole = {}
    for i, length in enumerate(lengths):
        tokens = tuple(tokenizer.encode_documents([chr(0x4E00 + i) + "q" * length]).tolist())
        whole[tokens[:HEAD]] = tokens[: seq_len + 1]
    epochs, seen = 3, [Counter[tuple[int, ...]]() for _ in range(3)]
    for rank in range(world):
        loader = BosAlignedLoader(
            paths, tokenizer, batch_size=1, seq_len=seq_len, rank=rank, world_size=world, seed=3, shuffle=shuffle
        )
        share = len(lengths) // world
        found: list[tuple[int, ...]] = []
        while len(found) < epochs * share:
            rows = rows_of(loader, 1)
            assert rows[0][0] == tokenizer.bos
            assert len(rows[0]) == seq_len + 1
            found += pieces(rows, tokenizer.bos)
        for epoch in range(epochs):
            seen[epoch].update(found[epoch * share : (epoch + 1) * share])
    for epoch in seen:
        assert sum(epoch.values()) == len(lengths)
        by_document: Counter[tuple[int, ...]] = Counter()
        for piece, count in epoch.items():
            if len(piece) >= HEAD:
                assert piece == whole[piece[:HEAD]][: len(piece)]
                by_document[piece[:HEAD]] += count
            else:
                assert any(head[: len(piece)] == piece for head in whole)
        assert set(by_document.values()) <= {1}


@PROPERTY
@given(before=st.integers(0, 40), seq_len=st.integers(1, 50), world=st.integers(1, 3), shuffle=st.booleans(), data=st.data())
def test_resuming_anywhere_continues_the_same_rows(
    buffer: int, tokenizer: Tokenizer, tmp_path: Path, before: int, seq_len: int, world: int, shuffle: bool, data: st.DataObject
) -> None:
    paths = corpus(tmp_path, [(i * 37) % 70 for i in range(data.draw(st.sampled_from([24, 300])))])
    where = {"rank": data.draw(st.integers(0, world - 1)), "world_size": world, "seed": 5, "shuffle": shuffle}
    shape = {"batch_size": 2, "seq_len": seq_len, **where}
    loader = BosAlignedLoader(paths, tokenizer, **shape)  # type: ignore[arg-type]
    rows_of(loader, before)
    state = json.loads(json.dumps(loader.state()))
    again = BosAlignedLoader(paths, tokenizer, **shape, state=state)  # type: ignore[arg-type]
    assert again.state() == state
    assert rows_of(again, 15) == rows_of(loader, 15)
    assert again.state() == loader.state()
    assert cropped_pct(again.state()) == cropped_pct(loader.state())


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    rooms=st.lists(st.integers(1, 12), max_size=30),
    row=st.integers(1, 12),
)
def test_takes_the_longest_that_fits_else_crops_the_shortest(lengths: list[int], rooms: list[int], row: int) -> None:
    buffer: BestFit[int] = BestFit(row)
    for place, length in enumerate(lengths):
        buffer.add(place, np.full(length, place))
    waiting = {place: min(length, row) for place, length in enumerate(lengths)}
    for room in rooms:
        if not waiting:
            with pytest.raises(IndexError):
                buffer.take(room)
            break
        fitting = [n for n in waiting.values() if n <= room]
        chosen = max(fitting) if fitting else min(waiting.values())
        taken = buffer.take(room)
        assert len(taken) == min(chosen, room)
        assert waiting.pop(int(taken[0])) == chosen
        assert sorted(waiting) == sorted(buffer.places())
    assert buffer.placed + buffer.cropped + sum(waiting.values()) == sum(lengths)


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 30))))
def test_ranges_name_every_place(places: set[tuple[int, int]]) -> None:
    assert list(places_in(ranges(list(places)))) == sorted(places)


def test_the_cropped_share_counts_the_tokens_left_out(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = corpus(tmp_path, [(i * 37) % 70 for i in range(120)])
    loader = BosAlignedLoader(paths, tokenizer, batch_size=1, seq_len=29)
    assert cropped_pct(loader.state()) == {}
    rows_of(loader, 8)
    state = loader.state()
    assert state["placed"] == 8 * 30
    total = sum(len(tokenizer.encode_documents(loader.documents.texts(0, p))) for p in range(20))
    waiting = sum(n for n, *_ in loader._buffer._waiting)
    assert state["placed"] + state["cropped"] + waiting == total
    assert cropped_pct(state)["cropped_pct"] == pytest.approx(100 * state["cropped"] / (state["placed"] + state["cropped"]))


def test_a_state_of_another_packing_order_or_data_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = corpus(tmp_path, [5] * 24)
    shape = {"batch_size": 1, "seq_len": 8}
    state = BosAlignedLoader(paths, tokenizer, **shape).state()  # type: ignore[arg-type]
    with pytest.raises(StageError, match="loader 'bos_aligned'"):
        TextLoader(paths, tokenizer, **shape, state=state)  # type: ignore[arg-type]
    with pytest.raises(StageError, match="shuffle"):
        BosAlignedLoader(paths, tokenizer, **shape, shuffle=True, state=state)  # type: ignore[arg-type]
    with pytest.raises(StageError, match="data"):
        BosAlignedLoader(paths[1:], tokenizer, **shape, state=state)  # type: ignore[arg-type]


def test_the_state_of_a_full_buffer_is_small(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = corpus(tmp_path, [(i * i * 37) % 600 for i in range(12_000)])
    loader = BosAlignedLoader(paths, tokenizer, batch_size=4, seq_len=256)
    rows_of(loader, 150)
    state = loader.state()
    assert len(list(places_in(state["waiting"]))) >= bos_aligned.BUFFER
    assert len(json.dumps(state)) < 20_000


def test_shuffle_changes_the_first_epochs_order_by_the_seed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = corpus(tmp_path, [7] * 240)

    def first_epoch(seed: int, shuffle: bool) -> list[int]:
        size = len(tokenizer.encode_documents([chr(0x4E00) + "q" * 7]))
        loader = TextLoader(paths, tokenizer, batch_size=1, seq_len=size * 240 - 1, seed=seed, shuffle=shuffle)
        return rows_of(loader, 1)[0]

    plain, one, two = first_epoch(1, False), first_epoch(1, True), first_epoch(2, True)
    assert plain == first_epoch(2, False)
    assert len({tuple(plain), tuple(one), tuple(two)}) == 3
    assert one == first_epoch(1, True)
    assert sorted(one) == sorted(plain)
