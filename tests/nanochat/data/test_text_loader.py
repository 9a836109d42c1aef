"""Rows of tokens from text: all ranks together read every document once per epoch, resuming is exact, epochs never end."""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nanochat.contract.contract import StageError
from nanochat.data.loader import TextLoader
from nanochat.tokenizer import Tokenizer


def write(folder: Path, groups: list[list[list[str | None]]]) -> list[Path]:
    """Write one parquet file for each list of row groups, each of which is a list of documents."""
    paths = []
    for i, row_groups in enumerate(groups):
        paths.append(folder / f"shard_{i:05d}.parquet")
        schema = pa.schema([("text", pa.string())])
        with pq.ParquetWriter(paths[-1], schema) as writer:
            for texts in row_groups:
                writer.write_table(pa.table({"text": pa.array(texts, pa.string())}, schema=schema))
    return paths


def corpus(folder: Path, files: int = 2, groups: int = 9, documents: int = 5) -> tuple[list[Path], list[str]]:
    """Write files of unique documents. Returns (paths, texts)."""
    texts = [
        [[f"Document {f} {g} {d}: " + "the fox " * (d % 4) for d in range(documents)] for g in range(groups)]
        for f in range(files)
    ]
    return write(folder, texts), [t for file in texts for group in file for t in group]  # type: ignore[arg-type]


def stream(loader: TextLoader, batches: int) -> list[int]:
    """The tokens of the next batches as they were in the stream: all inputs of a batch, then its last target."""
    out: list[int] = []
    for _ in range(batches):
        inputs, targets = loader.next_batch()
        assert inputs.shape == targets.shape
        assert (inputs.flatten()[1:] == targets.flatten()[:-1]).all()
        out += [*inputs.flatten().tolist(), int(targets.flatten()[-1])]
    return out


def documents_in(tokens: list[int], tokenizer: Tokenizer) -> list[str]:
    """The whole documents of a stream. The text after the last `<|bos|>` may be cut off and is left out."""
    starts = [i for i, token in enumerate(tokens) if token == tokenizer.bos]
    return [tokenizer.decode(tokens[a + 1 : b]) for a, b in itertools.pairwise(starts)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("groups", [9, 1])  # ranks share out row groups if there are many, else documents
def test_an_epoch_holds_every_document_once_over_all_ranks(
    tokenizer: Tokenizer, tmp_path: Path, world_size: int, groups: int
) -> None:
    paths, texts = corpus(tmp_path, groups=groups)
    for epochs in (1, 3):
        seen: Counter[str] = Counter()
        for rank in range(world_size):
            # Two tokens per batch, so that at most one token of the next epoch is taken.
            loader = TextLoader(paths, tokenizer, batch_size=1, seq_len=1, rank=rank, world_size=world_size, seed=7)
            tokens: list[int] = []
            while loader.state()["epoch"] < epochs:
                tokens += stream(loader, 1)
            seen.update(d for d in documents_in([*tokens, tokenizer.bos], tokenizer) if d)
        assert seen == Counter(dict.fromkeys(texts, epochs))
    first = TextLoader(paths, tokenizer, batch_size=1, seq_len=8)
    size = sum(len(tokenizer.encode_documents([t])) for t in texts)
    whole = stream(first, size // 9)
    assert whole == tokenizer.encode_documents(texts).tolist()[: len(whole)]  # one rank, first epoch: file order


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    before=st.integers(0, 60), batch_size=st.integers(1, 3), seq_len=st.integers(1, 40), world=st.integers(1, 3), data=st.data()
)
def test_resuming_anywhere_continues_the_same_stream(
    tokenizer: Tokenizer, tmp_path: Path, before: int, batch_size: int, seq_len: int, world: int, data: st.DataObject
) -> None:
    paths, _ = corpus(
        tmp_path, files=2, groups=data.draw(st.sampled_from([1, 8])), documents=data.draw(st.sampled_from([3, 200]))
    )
    rank = data.draw(st.integers(0, world - 1))
    shape = {"batch_size": batch_size, "seq_len": seq_len, "rank": rank, "world_size": world}
    loader = TextLoader(paths, tokenizer, **shape)
    stream(loader, before)
    state = json.loads(json.dumps(loader.state()))
    again = TextLoader(paths, tokenizer, **shape, state=state)
    assert again.state() == state
    assert stream(again, 12) == stream(loader, 12)
    assert again.state() == loader.state()


def test_later_epochs_are_shuffled_by_the_seed(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths, texts = corpus(tmp_path)
    size = len(tokenizer.encode_documents(texts))

    def epochs(seed: int) -> tuple[list[int], list[int]]:
        loader = TextLoader(paths, tokenizer, batch_size=1, seq_len=size - 1, seed=seed)
        return stream(loader, 1), stream(loader, 1)

    (first, second), (first_b, second_b) = epochs(1), epochs(2)
    assert first == first_b
    assert second != first
    assert second != second_b
    assert sorted(second) == sorted(first)
    assert epochs(1) == (first, second)


def test_a_rank_with_nothing_to_read_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = write(tmp_path, [[["only one document"]]])
    loader = TextLoader(paths, tokenizer, batch_size=1, seq_len=4, rank=1, world_size=2)
    with pytest.raises(StageError, match="rank 1 of 2"):
        loader.next_batch()
    assert len(stream(TextLoader(paths, tokenizer, batch_size=1, seq_len=4, rank=0, world_size=2), 20)) == 100


def test_null_and_empty_documents_are_skipped(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths = write(tmp_path, [[[None, "", "a fox", None], [None], []], [["a dog"]]])
    loader = TextLoader(paths, tokenizer, batch_size=1, seq_len=1)
    expected = tokenizer.encode_documents(["a fox", "a dog"]).tolist()
    assert stream(loader, len(expected) // 2) == expected[: len(expected) // 2 * 2]
    empty = write(tmp_path, [[[None, ""]]])
    with pytest.raises(StageError, match="no document"):
        TextLoader(empty, tokenizer, batch_size=1, seq_len=4).next_batch()


@pytest.mark.parametrize("change", [{"rank": 1}, {"world_size": 1, "rank": 0}, {"seed": 9}])
def test_a_state_of_another_rank_or_run_is_refused(tokenizer: Tokenizer, tmp_path: Path, change: dict[str, int]) -> None:
    paths, _ = corpus(tmp_path)
    own = {"rank": 0, "world_size": 2, "seed": 0}
    state = TextLoader(paths, tokenizer, batch_size=1, seq_len=4, **own).state()
    with pytest.raises(StageError, match=next(iter(change))):
        TextLoader(paths, tokenizer, batch_size=1, seq_len=4, **{**own, **change}, state=state)
    with pytest.raises(StageError, match="data"):
        TextLoader(paths[:-1], tokenizer, batch_size=1, seq_len=4, **own, state=state)


def test_batches_are_int64_on_the_cpu(tokenizer: Tokenizer, tmp_path: Path) -> None:
    paths, _ = corpus(tmp_path)
    inputs, targets = TextLoader(paths, tokenizer, batch_size=3, seq_len=5).next_batch()
    assert inputs.shape == targets.shape == (3, 5)
    assert str(inputs.dtype) == str(targets.dtype) == "torch.int64"
    assert np.asarray(inputs).max() < tokenizer.vocab_size
