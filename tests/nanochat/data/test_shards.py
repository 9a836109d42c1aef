"""The checks on a folder of shards, and the index that stages share."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.contract.contract import Exit, StageError
from nanochat.data.folder import folder_shards
from nanochat.data.shards import Shard, ShardIndex, count_chars, documents, texts_of, write_index, write_shard
from nanochat.data.words import frequent_words


def test_the_last_file_by_name_is_the_validation_shard(shards: list[Path]) -> None:
    train, val = folder_shards(shards[0].parent)
    assert (train, val) == (shards[:-1], shards[-1:])


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no folder .*nowhere"):
        folder_shards(tmp_path / "nowhere")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("hello")
    with pytest.raises(StageError, match=r"holds no \.parquet, \.jsonl or \.txt file"):
        folder_shards(tmp_path)


def test_a_shard_without_text_is_refused_with_its_columns(shards: list[Path]) -> None:
    pq.write_table(pa.table({"content": ["a"], "id": [1]}), shards[1])
    with pytest.raises(StageError, match=r"shard_00001\.parquet has no column 'text'; its columns are content, id"):
        folder_shards(shards[0].parent)
    pq.write_table(pa.table({"text": [1, 2]}), shards[1])
    with pytest.raises(StageError, match=r"shard_00001\.parquet: column 'text' is int64"):
        folder_shards(shards[0].parent)


def test_a_damaged_page_under_an_intact_footer_is_bad_input_and_named(shards: list[Path]) -> None:
    content = bytearray(shards[1].read_bytes())
    content[40:400] = bytes(360)
    shards[1].write_bytes(content)
    folder_shards(shards[0].parent)  # the footer says that all is well
    for read in (lambda: count_chars(shards[1], 10), lambda: list(texts_of(shards[1])), lambda: frequent_words([shards[1]])):
        with pytest.raises(StageError, match=r"shard .*shard_00001\.parquet cannot be read") as caught:
            read()
        assert (caught.value.exit_code, caught.value.code) == (Exit.BAD_INPUT, "shard_unreadable")


def test_text_that_is_not_utf8_is_found_before_training(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    latin = pa.array([b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": latin}), path)
    with pytest.raises(StageError, match=r"a\.parquet cannot be read: .*UTF-?8"):
        count_chars(path, 10)


def test_a_column_beside_text_does_not_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text.en": ["x" * 50], "text": ["four"]}), path)
    assert count_chars(path, 10) == (4, 4)
    assert documents(path, 0) == ["four"]


def test_a_file_that_is_no_parquet_is_refused(shards: list[Path]) -> None:
    shards[0].write_bytes(shards[0].read_bytes()[:-100])
    with pytest.raises(StageError, match=r"shard_00000\.parquet is not a readable parquet"):
        folder_shards(shards[0].parent)


def test_shards_without_documents_are_refused(shards: list[Path]) -> None:
    write_shard(shards[-1], [])
    with pytest.raises(StageError, match=r"validation shard .* no documents"):
        folder_shards(shards[0].parent)
    for path in shards:
        write_shard(path, [])
    with pytest.raises(StageError, match=r"train shards .* no documents"):
        folder_shards(shards[0].parent)


def test_the_index_names_a_shard_that_changed(shards: list[Path], tmp_path: Path) -> None:
    entries = [Shard(str(p), p.stat().st_size) for p in shards]
    write_index(tmp_path / "index", entries[:-1], entries[-1:])
    index = ShardIndex.load(tmp_path / "index")
    assert (index.train, index.val) == (shards[:-1], shards[-1:])
    shards[1].write_bytes(b"x")
    with pytest.raises(StageError, match=r"shard_00001\.parquet has 1 bytes"):
        ShardIndex.load(tmp_path / "index")
    shards[1].unlink()
    with pytest.raises(StageError, match=r"shard_00001\.parquet is missing"):
        ShardIndex.load(tmp_path / "index")


def test_characters_are_counted_whole_and_capped(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["한국어", "x" * 100, None, ""]}), path)
    assert count_chars(path, 10) == (103, 13)


def test_row_groups_hold_1024_documents(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"document {i}" for i in range(2500)]
    write_shard(path, texts)
    meta = pq.ParquetFile(path).metadata
    assert [meta.row_group(i).num_rows for i in range(meta.num_row_groups)] == [1024, 1024, 452]
    assert documents(path, 2) == texts[2048:]
    assert pq.read_table(path)["text"].to_pylist() == texts


def test_words_come_by_frequency_in_lower_case(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_shard(path, ["the cat and the dog and the bird", "Paris isn't it; the e-mail, foo_bar(x) and cat.name"])
    assert frequent_words([path]) == ["the", "and", "bird", "cat", "dog"]
