"""A user's folder of text: forms, columns, names of validation files, and what is rewritten as standard shards."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config.recipe import Recipe, resolve
from nanochat.contract.contract import Exit, StageError
from nanochat.data.folder import TextFolder, read_folder
from nanochat.data.shards import ShardIndex, check_shard, texts_of, write_shard
from nanochat.data.standard import standard_shard
from nanochat.tokenizer import Tokenizer

from . import running
from .conftest import SENTENCES

DOCUMENTS = [f"{i}: {SENTENCES[i % len(SENTENCES)]} ünïcode 한국어" for i in range(50)]


def texts(path: Path) -> list[str]:
    return [text for array in texts_of(path) for text in array.to_pylist()]


def read(folder: Path, cache: Path, column: str = "text") -> tuple[list[str], list[str]]:
    """The training and the validation text of a folder, as the stages read it."""
    found = read_folder(folder, column)
    sides = ([text for part in parts for text in texts(standard_shard(part, cache))] for parts in (found.train, found.val))
    train, val = sides
    return train, val


def names(found: TextFolder) -> tuple[list[str], list[str]]:
    train, val = ([p.name for part in parts for p in part.files] for parts in (found.train, found.val))
    return train, val


def folder(tmp_path: Path, *files: str) -> Path:
    root = tmp_path / "text"
    root.mkdir()
    for name in files:
        write_shard(root / name, DOCUMENTS[:3])
    return root


# -- which file is for what --


@pytest.mark.parametrize(
    ("files", "train", "val"),
    [
        (["a.parquet", "b.parquet"], ["a.parquet"], ["b.parquet"]),
        (
            ["test-00000-of-00001.parquet", "train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
            ["test-00000-of-00001.parquet"],
        ),
        (
            ["test-00000-of-00001.parquet", "train-00000-of-00001.parquet", "validation-00000-of-00001.parquet"],
            ["train-00000-of-00001.parquet"],
            ["validation-00000-of-00001.parquet"],
        ),
        (
            ["TinyStories-train.parquet", "TinyStories-valid.parquet"],
            ["TinyStories-train.parquet"],
            ["TinyStories-valid.parquet"],
        ),
        (["a_val.parquet", "b_train.parquet", "c.parquet"], ["b_train.parquet", "c.parquet"], ["a_val.parquet"]),
        (["valentine.parquet", "testament.parquet"], ["testament.parquet"], ["valentine.parquet"]),
        (["test-1.parquet", "test-2.parquet"], ["test-1.parquet"], ["test-2.parquet"]),
    ],
)
def test_the_validation_files_are_found_by_their_names(
    tmp_path: Path, files: list[str], train: list[str], val: list[str]
) -> None:
    assert names(read_folder(folder(tmp_path, *files))) == (train, val)


def test_hidden_files_do_not_count(tmp_path: Path) -> None:
    root = folder(tmp_path, "a.parquet", "b.parquet")
    for name in ("._a.parquet", ".b.parquet", "_metadata.parquet", "README.txt"):
        (root / name).write_bytes(b"no text")
    assert names(read_folder(root)) == (["a.parquet"], ["b.parquet"])


def test_links_keep_their_names(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for name in ("test-0.parquet", "train-0.parquet"):
        write_shard(tmp_path / f"blob-{name[:2]}", DOCUMENTS[:3])
        (root / name).symlink_to(tmp_path / f"blob-{name[:2]}")
    assert names(read_folder(root)) == (["train-0.parquet"], ["test-0.parquet"])


def test_shards_in_a_folder_below_are_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data/train-0.parquet", DOCUMENTS)
    with pytest.raises(StageError) as caught:
        read_folder(tmp_path)
    assert "data" in caught.value.hint


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_of_a_single_file_the_last_twentieth_validates(tmp_path: Path, form: str) -> None:
    root = folder(tmp_path)
    if form == "parquet":
        write_shard(root / "a.parquet", DOCUMENTS)
    else:
        (root / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    train, val = read(root, tmp_path / "cache")
    assert (train, val) == (DOCUMENTS[:48], DOCUMENTS[48:])


# -- columns and types --

TYPES = {
    "large_string": pa.array(DOCUMENTS, pa.large_string()),
    "string_view": pa.array(DOCUMENTS, pa.string_view()),
    "binary": pa.array([text.encode() for text in DOCUMENTS], pa.binary()),
    "large_binary": pa.array([text.encode() for text in DOCUMENTS], pa.large_binary()),
    "categorical": pa.array(DOCUMENTS).dictionary_encode(),
    "large categorical": pa.array(DOCUMENTS, pa.large_string()).dictionary_encode(),
    "with nulls": pa.array([None, *DOCUMENTS, None], pa.string_view()),
}


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_that_holds_text_is_read(tmp_path: Path, kind: str) -> None:
    root = folder(tmp_path)
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"id": range(len(TYPES[kind])), "text": TYPES[kind]}), root / name)
    assert read(root, tmp_path / "cache") == (DOCUMENTS, DOCUMENTS)


def test_bytes_that_are_no_text_are_refused_by_the_shards_name(tmp_path: Path) -> None:
    root = folder(tmp_path, "b.parquet")
    pq.write_table(pa.table({"text": [b"fine", b"caf\xe9"]}), root / "a.parquet")
    with pytest.raises(StageError, match=r"a\.parquet cannot be read: .*UTF-?8") as caught:
        read(root, tmp_path / "cache")
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_a_setting_names_the_column(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(pa.table({"text": ["no"] * 50, "content": DOCUMENTS}), root / name)
    assert read(root, tmp_path / "cache", "content") == (DOCUMENTS, DOCUMENTS)
    assert read(root, tmp_path / "cache")[0] == ["no"] * 50
    with pytest.raises(StageError, match="has no column 'body'; its columns are text, content"):
        read_folder(root, "body")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, "b.parquet")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), root / "a.parquet")
    with pytest.raises(StageError, match=r"a\.parquet has 2 columns 'text'"):
        read_folder(root)


# -- lines and plain text --


def packed(path: Path, content: bytes) -> None:
    if path.suffix == ".gz":
        content = gzip.compress(content[:100]) + gzip.compress(content[100:])  # of two members, as pigz and `cat` make them
    elif path.suffix == ".zst":
        content = b"".join(pa.compress(part, codec="zstd", asbytes=True) for part in (content[:100], content[100:]))
    path.write_bytes(content)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst", ".jsonl.gz"])
def test_lines_of_json_are_read(tmp_path: Path, suffix: str) -> None:
    root = folder(tmp_path)
    lines = [json.dumps({"id": 1, "body": text}, ensure_ascii=i % 2 == 0) for i, text in enumerate(DOCUMENTS)]
    content = ("\ufeff" + "\n\n".join(lines) + '\n{"body": null}\n{"body": ""}').encode()
    packed(root / f"c4-train{suffix}", content)
    packed(root / f"c4-validation{suffix}", content)
    assert read(root, tmp_path / "cache", "body") == (DOCUMENTS, DOCUMENTS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'text': 1}", r"line 3 of .*a\.jsonl is not JSON"),
        (b'{"txt": "a"}', r"line 3 of .*a\.jsonl has no key 'text'; its keys are txt"),
        (b'["a"]', r"line 3 of .*a\.jsonl has no key 'text'; it is list"),
        (b'{"text": ["a"]}', r"line 3 of .*a\.jsonl has list, not a string"),
        (b'{"text": "\xff"}', r"line 3 of .*a\.jsonl is not UTF-8"),
        (b'{"text": "\\ud800"}', r"line 3 of .*a\.jsonl has half of a surrogate pair"),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    root = folder(tmp_path)
    (root / "a.jsonl").write_bytes(b'{"text": "one"}\n\n' + line + b"\n")
    (root / "b.jsonl").write_bytes(b'{"text": "one"}\n')
    with pytest.raises(StageError, match=message) as caught:
        read(root, tmp_path / "cache")
    assert caught.value.exit_code == Exit.BAD_INPUT
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_a_file_that_is_cut_off_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path)
    whole = pa.compress(random.Random(1).randbytes(5000).hex().encode() + b"\n", codec="zstd", asbytes=True)
    (root / "a.jsonl.zst").write_bytes(whole[:-200])
    (root / "b.jsonl").write_bytes(b'{"text": "one"}\n')
    with pytest.raises(StageError, match=r"a\.jsonl\.zst cannot be read after line 0") as caught:
        read(root, tmp_path / "cache")
    assert caught.value.exit_code == Exit.BAD_INPUT


@pytest.mark.parametrize("suffix", [".txt", ".txt.zst", ".txt.gz"])
def test_plain_text_comes_whole_in_passages(tmp_path: Path, suffix: str) -> None:
    root = folder(tmp_path)
    book = "\n\n".join(" ".join(SENTENCES) + f" {i}" for i in range(400)) + "\n" + "no end " * 9000
    packed(root / f"book{suffix}", book.encode())
    train, val = read(root, tmp_path / "cache")
    assert "".join(train + val) == book
    assert len(val) == max(1, len(train + val) // 20)
    assert all(len(text) <= 16_000 for text in train)
    assert sum(text.endswith("\n\n") for text in train) > len(train) / 2


def test_a_mark_separates_documents_of_plain_text(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "stories-train.txt").write_text("one\n<|endoftext|>\ntwo\n<|endoftext|>three")
    (root / "stories-valid.txt").write_text("four")
    assert read(root, tmp_path / "cache") == (["one\n", "\ntwo\n", "three"], ["four"])


def test_text_is_rewritten_once_and_anew_when_it_changes(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        (root / name).write_text('{"text": "old"}\n')
    made = [standard_shard(part, tmp_path / "cache") for part in read_folder(root).train]
    again = [standard_shard(part, tmp_path / "cache") for part in read_folder(root).train]
    assert made == again
    check_shard(made[0])
    (root / "a.jsonl").write_text('{"text": "new text"}\n')
    assert read(root, tmp_path / "cache") == (["new text"], ["old"])


# -- the stage --


def recipe_of(root: Path, **source: object) -> Recipe:
    text = {"kind": "folder", "path": str(root), **source}
    return resolve("tiny", {"data.source": text, "data.tok_chars": 1000, "tokenizer.vocab_size": 400})


def lines(count: int, seed: int) -> str:
    rng = random.Random(seed)
    return "".join(
        json.dumps({"body": " ".join(rng.choices(SENTENCES, k=6)) + f" {rng.random()}"}) + "\n" for _ in range(count)
    )


def test_from_lines_of_json_to_a_tokenizer(tmp_path: Path) -> None:
    root = folder(tmp_path)
    packed(root / "part-0.jsonl.zst", lines(80, 1).encode())
    packed(root / "part-validation.jsonl.gz", lines(20, 2).encode())
    recipe = recipe_of(root, column="body")
    data = running.run(tmp_path, "data", recipe)
    assert data.code == 0
    assert data.results["val_shard"] == "part-validation.parquet"
    assert data.results["val_in_train_pct"] == 0
    assert any("part-validation.parquet" in event["message"] for event in data.events("log"))
    trained = running.run(tmp_path, "tok_train", recipe, {"shards": data.outputs["tok_shards"]})
    assert trained.code == 0
    assert Tokenizer.load(Path(trained.outputs["tokenizer"]["path"])).vocab_size == 400
    index = ShardIndex.load(Path(data.outputs["shards"]["path"]))
    assert [len(texts(path)) for path in (*index.train, *index.val)] == [80, 20]


def test_validation_text_that_is_trained_on_gives_a_warning(tmp_path: Path) -> None:
    root = folder(tmp_path)
    content = lines(80, 1)
    (root / "a.jsonl").write_text(content)
    (root / "b.jsonl").write_text(content)
    data = running.run(tmp_path, "data", recipe_of(root, column="body"))
    warning = next(event for event in data.events("warning") if event["code"] == "trained_on_validation")
    assert "100% of the validation documents in b.parquet are also trained on" in warning["message"]
    assert data.results["val_in_train_pct"] == 100


def test_too_little_text_is_counted_whole(tmp_path: Path) -> None:
    root = folder(tmp_path)
    for name in ("a.parquet", "b.parquet"):
        write_shard(root / name, ["x" * 5 + " word" * 40_000])
    source = {"kind": "folder", "path": str(root)}
    data = running.run(tmp_path, "data", resolve("tiny", {"data.source": source}))
    message = next(event["message"] for event in data.events("warning") if event["code"] == "little_text")
    assert "there are 200,005 characters of text at data.source, 10,000 of them within tokenizer.doc_cap" in message


def test_a_damaged_page_ends_the_stage_with_bad_input_and_the_shards_name(shards: list[Path], tmp_path: Path) -> None:
    content = bytearray(shards[0].read_bytes())
    content[40:400] = bytes(360)
    shards[0].write_bytes(content)
    data = running.run(tmp_path, "data", recipe_of(shards[0].parent))
    assert data.code == Exit.BAD_INPUT
    assert "shard_00000.parquet cannot be read" in data.events("error")[0]["message"]
    assert data.outputs == {}


def korean(root: Path) -> Path:
    rng = random.Random(1)
    words = [f"{a}{b}" for a in "가나다라마바사아" for b in "국말글책물불산강"]
    for name in ("a.jsonl", "b.jsonl"):
        lines = (json.dumps({"text": " ".join(rng.choices(words, k=80))}, ensure_ascii=False) for _ in range(50))
        (root / name).write_text("\n".join(lines), encoding="utf-8")
    return root


def test_words_that_cannot_feed_a_task_are_said_before_training(tmp_path: Path) -> None:
    recipe = recipe_of(korean(folder(tmp_path)))
    data = running.run(tmp_path, "data", recipe)
    assert data.code == Exit.BAD_INPUT
    error = data.events("error")[0]
    assert error["code"] == "no_words"
    assert "0 words" in error["message"]
    assert "spelling/train (mid.train.1)" in error["message"]
    assert "identity" not in error["message"]
    assert "shards" not in data.outputs, "pretraining must not begin"


def test_text_without_english_words_trains_what_needs_none(tmp_path: Path) -> None:
    root = korean(folder(tmp_path))
    text = {"kind": "folder", "path": str(root)}
    changes = {"data.source": text, "data.tok_chars": 1000, "tokenizer.vocab_size": 400}
    without = {"mid.enabled": False, "sft.enabled": False, "chat_eval.tasks": ["spelling", "sums"]}
    data = running.run(tmp_path, "data", resolve("tiny", {**changes, **without}))
    assert data.code == 0
    assert data.results["words"] == 0
    mixture = {"mid.train": [{"task": "sums"}], "mid.val": [{"task": "sums"}], "sft.enabled": False}
    evaluated = {**changes, **mixture, "chat_eval.tasks": ["spelling", "sums"]}
    data = running.run(tmp_path / "evaluated", "data", resolve("tiny", evaluated))
    assert data.code == Exit.BAD_INPUT
    assert "too few for spelling/test (chat_eval.tasks)" in data.events("error")[0]["message"]
    data = running.run(tmp_path / "allowed", "data", resolve("tiny", {**evaluated, "chat_eval.allow_incomplete": True}))
    assert data.code == 0
    assert [e for e in data.events("warning") if e["code"] == "evaluation_incomplete"]
