"""Resuming with another number of ranks: no data are used twice."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.contract.contract import StageError
from nanochat.data import bos_aligned
from nanochat.data.bos_aligned import BosAlignedLoader
from nanochat.data.loader import SftLoader, TextLoader
from nanochat.data.resize import state_near

WORDS = [f"w{i:04d}" for i in range(3000)]


@pytest.fixture(params=[8, 400], ids=["many row groups", "documents shared out"])
def shard(request, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": WORDS}), path, row_group_size=request.param)
    return path


def seen(tokenizer, loader, batches):
    text = "".join(tokenizer.decode(loader.next_batch()[0].flatten().tolist()) for _ in range(batches))
    return {word for word in text.replace("<|bos|>", " ").split() if len(word) == 5}


@pytest.mark.parametrize("kind", [TextLoader, BosAlignedLoader])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 3), (4, 2), (1, 8), (8, 1)])
def test_no_document_is_repeated_and_few_are_skipped(tokenizer, shard, kind, shuffle, old, new, monkeypatch):
    monkeypatch.setattr(bos_aligned, "BUFFER", 20)

    def loader(rank, world, state=None):
        where = {"rank": rank, "world_size": world, "shuffle": shuffle, "state": state}
        return kind([shard], tokenizer, batch_size=1, seq_len=40, **where)

    before = [loader(rank, old) for rank in range(old)]
    learnt = set().union(*(seen(tokenizer, one, 12) for one in before))
    saved = [one.state() for one in before]
    after = []
    for rank in range(new):
        state = state_near(loader(rank, new), saved)
        assert state["epoch"] == 0
        after.append(loader(rank, new, state))
    fresh = set().union(*(seen(tokenizer, one, 4) for one in after))
    assert not learnt & fresh
    place = after[0].state()
    assert (place["epoch"], shuffle or min(WORDS.index(word) for word in fresh) < 2000) == (0, True)


@pytest.mark.parametrize("kind", [TextLoader, BosAlignedLoader])
def test_a_place_past_the_end_of_an_epoch_continues_in_the_next(tokenizer, shard, kind, monkeypatch):
    monkeypatch.setattr(bos_aligned, "BUFFER", 20)

    def loader(rank, world, state=None):
        return kind([shard], tokenizer, batch_size=1, seq_len=40, rank=rank, world_size=world, state=state)

    one = loader(0, 1)
    while (state := one.state())["position"] < one.documents.row_groups - 1:
        one.next_batch()
    resized = [loader(rank, 8, state_near(loader(rank, 8), [state])) for rank in range(8)]
    for each in resized:
        each.next_batch()
        assert each.state()["epoch"] == 1


def test_another_packing_is_refused(tokenizer, shard):
    shape = {"batch_size": 1, "seq_len": 40}
    fresh = BosAlignedLoader([shard], tokenizer, **shape, world_size=2)
    state = state_near(fresh, [TextLoader([shard], tokenizer, **shape).state()])
    with pytest.raises(StageError, match="saved position has loader 'text'"):
        BosAlignedLoader([shard], tokenizer, **shape, world_size=2, state=state)


def test_other_data_are_refused(tokenizer, shard, tmp_path):
    saved = TextLoader([shard], tokenizer, batch_size=1, seq_len=40).state()
    other = tmp_path / "b.parquet"
    pq.write_table(pa.table({"text": WORDS[:50]}), other)
    fresh = TextLoader([other], tokenizer, batch_size=1, seq_len=40, world_size=2)
    with pytest.raises(StageError, match="saved position has data"):
        TextLoader([other], tokenizer, batch_size=1, seq_len=40, world_size=2, state=state_near(fresh, [saved]))


def test_conversations_continue_after_the_last_one_taken(tokenizer):
    chat = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": f"b{i}"}]} for i in range(40)]

    def loader(rank, world, state=None):
        return SftLoader(chat, tokenizer, batch_size=2, seq_len=20, rank=rank, world_size=world, state=state)

    before = [loader(rank, 3) for rank in range(3)]
    for one in before:
        one.next_batch()
    state = state_near(loader(1, 2), [one.state() for one in before])
    assert (state["rank"], state["world_size"], state["position"]) == (1, 2, 6)  # of all ranks together
    assert loader(1, 2, state).epoch_progress() == 6 / 40
