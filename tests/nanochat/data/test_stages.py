"""The stages data, tok_train and tok_eval, run by hand: their outputs, in which order, and their errors on bad input."""

import io
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nanochat.config.recipe import Recipe, resolve
from nanochat.contract.contract import Exit, ExitReport
from nanochat.data.shards import ShardIndex, write_shard
from nanochat.tasks.catalog import SPLITS
from nanochat.tasks.mixture import load_mixture
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource, read_word_list
from nanochat.tokenizer import Tokenizer

from . import running
from .running import Ran
from .server import Server, corrupt, cut_after, stall_after, status

RANKS = Path(__file__).resolve().parents[4] / "shared" / "data" / "tokenizers" / "tiktoken_cache"


def tiny(source: dict[str, object], **overrides: object) -> Recipe:
    table = {key.replace("__", "."): value for key, value in overrides.items()}
    return resolve("tiny", {"data.source": source, "data.tok_chars": 1000, "tokenizer.vocab_size": 400, **table})


def folder_of(shards: list[Path]) -> dict[str, object]:
    return {"kind": "folder", "path": str(shards[0].parent)}


def http(server: Server, **more: object) -> dict[str, object]:
    return {"kind": "http", "base_url": server.url, "train_shards": 2, "val_index": 2, **more}


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not hold within {seconds:.0f} s"
        time.sleep(0.02)


def test_from_text_to_a_tokenizer_and_its_table(shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    recipe = tiny(folder_of(shards))
    assert running.start(tmp_path, "data", recipe).wait(60) == 0
    data = Ran(tmp_path / "data", 0)
    assert list(data.outputs) == ["tok_shards", "shards", "tasks", "core", "results"]
    index = ShardIndex.load(Path(data.outputs["shards"]["path"]))
    assert (index.train, index.val) == (shards[:-1], shards[-1:])
    assert ShardIndex.load(Path(data.outputs["tok_shards"]["path"])) == ShardIndex(shards[:1], [])  # enough characters
    source = TaskSource.load(Path(data.outputs["tasks"]["path"]))
    assert {"letters", "function", "validation"} <= set(source.words)
    assert json.loads((data.out / "core/core.json").read_text()) == {"root": None}
    assert data.results["train_shards"] == 2
    assert "arc_easy/test" in data.results["missing_task_files"]

    trained = running.run(tmp_path, "tok_train", recipe, {"shards": data.outputs["tok_shards"]})
    assert trained.code == 0
    tokenizer = Tokenizer.load(Path(trained.outputs["tokenizer"]["path"]))
    assert tokenizer.vocab_size == 400
    assert trained.events("progress")[-1]["done"] == 400 - 256 - 9
    assert trained.results["token_bytes"]["min"] == 1

    inputs = {"tokenizer": trained.outputs["tokenizer"], "shards": data.outputs["shards"]}
    judged = running.run(tmp_path, "tok_eval", recipe, inputs)
    assert judged.code == 0
    rows = judged.results["table"]
    assert [r["text"] for r in rows] == ["news", "korean", "code", "maths", "science", "train", "val"]
    assert all(r["tokenizer"] == "ours" and r["ratio"] == round(r["bytes"] / r["tokens"], 3) for r in rows)
    assert "vocab.bpe is not in" in judged.results["not_available"]["gpt2"]
    assert "cl100k_base" in judged.results["not_available"]


@pytest.mark.skipif(not RANKS.is_dir(), reason="needs ../shared/data/tokenizers")
def test_the_table_has_the_peers_whose_files_are_there(
    shards: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(RANKS))
    recipe = tiny(folder_of(shards))
    data = running.run(tmp_path, "data", recipe)
    trained = running.run(tmp_path, "tok_train", recipe, {"shards": data.outputs["tok_shards"]})
    inputs = {"tokenizer": trained.outputs["tokenizer"], "shards": data.outputs["shards"]}
    results = running.run(tmp_path, "tok_eval", recipe, inputs).results
    assert results["not_available"] == {}
    assert results["vocab_size"] == {"ours": 400, "gpt2": 50_257, "cl100k_base": 100_277}
    news = {r["tokenizer"]: r for r in results["table"] if r["text"] == "news"}
    assert set(news) == {"ours", "gpt2", "cl100k_base"}
    assert news["gpt2"]["fewer_pct"] < 0 < news["gpt2"]["ratio"]


def test_a_vocabulary_that_the_text_cannot_fill_is_refused_with_the_largest(shards: list[Path], tmp_path: Path) -> None:
    recipe = tiny(folder_of(shards), tokenizer__vocab_size=9000)
    data = running.run(tmp_path, "data", recipe)
    refused = running.run(tmp_path, "tok_train", recipe, {"shards": data.outputs["tok_shards"]})
    assert refused.code == Exit.BAD_INPUT
    error = refused.events("error")[0]
    assert error["code"] == "vocab_too_large"
    largest = int(error["message"].rpartition(" ")[2])
    assert refused.outputs == {}
    for size, code in ((largest, 0), (largest + 1, Exit.BAD_INPUT)):
        folder = tmp_path / str(size)
        again = running.run(
            folder, "tok_train", tiny(folder_of(shards), tokenizer__vocab_size=size), {"shards": data.outputs["tok_shards"]}
        )
        assert again.code == code


# -- shards over HTTP --


def test_shards_are_fetched_despite_faults(server: Server, tmp_path: Path) -> None:
    server.faults = {
        "shard_00000.parquet": [cut_after(700), status(429, "0")],
        "shard_00001.parquet": [corrupt],
        "shard_00002.parquet": [status(500)],
    }
    data = running.run(tmp_path, "data", tiny(http(server)))
    assert data.code == 0
    index = ShardIndex.load(Path(data.outputs["shards"]["path"]))
    assert [p.name for p in [*index.train, *index.val]] == [f"shard_{i:05d}.parquet" for i in range(3)]
    for path in [*index.train, *index.val]:
        assert path.read_bytes() == (server.root / path.name).read_bytes()
    assert len(data.events("warning")) == 4
    assert data.events("progress")
    requests = server.requests.total()
    assert running.run(tmp_path, "data", tiny(http(server))).code == 0
    assert server.requests.total() == requests  # everything was in the cache


def test_the_tokenizers_shards_come_before_the_others(server: Server, tmp_path: Path) -> None:
    server.faults = {"shard_00001.parquet": [stall_after(300)]}
    process = running.start(tmp_path, "data", tiny(http(server)))
    ran = Ran(tmp_path / "data", 0)
    until(lambda: "tok_shards" in ran.outputs)
    assert list(ran.outputs) == ["tok_shards"]
    assert [p.name for p in ShardIndex.load(Path(ran.outputs["tok_shards"]["path"])).train] == ["shard_00000.parquet"]
    server.release.set()
    assert process.wait(30) == 0
    assert list(ran.outputs)[:2] == ["tok_shards", "shards"]


def test_a_shard_that_is_not_there_is_named(server: Server, tmp_path: Path) -> None:
    data = running.run(tmp_path, "data", tiny(http(server, train_shards=4, val_index=9)))
    assert data.code == Exit.BAD_INPUT
    assert "404" in data.events("error")[0]["message"]
    assert "shard_0000" in data.events("error")[0]["message"]
    assert "shards" not in data.outputs


def test_a_stop_ends_the_stage_and_the_next_attempt_continues(server: Server, tmp_path: Path) -> None:
    server.faults = {"shard_00001.parquet": [stall_after(300)]}
    process = running.start(tmp_path, "data", tiny(http(server)))
    ran = Ran(tmp_path / "data", 0)
    until(lambda: "tok_shards" in ran.outputs and server.requests["shard_00001.parquet"])
    (ran.out / "stop").touch()
    server.release.set()
    assert process.wait(30) == Exit.STOPPED
    assert ran.events("error")[0]["code"] == "stopped"
    (ran.out / "stop").unlink()
    assert running.run(tmp_path, "data", tiny(http(server))).code == 0


# -- bad input --


def poison(shards: list[Path], what: str) -> None:
    if what == "no parquet":
        for path in shards:
            path.unlink()
    elif what == "one document":
        for path in shards[1:]:
            path.unlink()
        write_shard(shards[0], ["one"])
    elif what == "no text":
        pq.write_table(pa.table({"body": ["a"]}), shards[1])
    elif what == "empty":
        for path in shards:
            write_shard(path, ["", ""])


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no parquet", "holds no .parquet"),
        ("one document", "shard_00000.parquet holds one document, so nothing is left for validation"),
        ("no text", "shard_00001.parquet has no column 'text'; its columns are body"),
        ("empty", "every document is empty"),
    ],
)
def test_a_bad_folder_is_refused_and_nothing_is_published(shards: list[Path], tmp_path: Path, what: str, message: str) -> None:
    poison(shards, what)
    data = running.run(tmp_path, "data", tiny(folder_of(shards)))
    assert data.code == Exit.BAD_INPUT
    assert message in data.events("error")[0]["message"]
    assert data.outputs == {}


# -- task data and CORE over HTTP --


def test_task_data_and_the_core_bundle_are_fetched_from_a_hub(shards: list[Path], server: Server, tmp_path: Path) -> None:
    rows = [{"question": f"What is {i}+1?", "answer": f"<<{i}+1={i + 1}>>#### {i + 1}"} for i in range(9)]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    (server.root / "part.parquet").write_bytes(buffer.getvalue().to_pybytes())
    for split in SPLITS.values():
        listing = server.root / f"api/datasets/{split.repo}/parquet/{split.config}/{split.split}"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text(json.dumps([f"{server.url}/part.parquet"] * 2))
    bundle = io.BytesIO()
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("eval_bundle/core.yaml", "icl_tasks: []\n")
        archive.writestr("eval_bundle/eval_meta_data.csv", "Eval Task,Random baseline\n")
    (server.root / "bundle.zip").write_bytes(bundle.getvalue())

    incomplete = tiny(folder_of(shards), data__tasks=server.url, data__core=f"{server.url}/bundle.zip")
    refused = running.run(tmp_path / "refused", "data", incomplete)
    assert refused.code == Exit.BAD_INPUT
    assert "core.yaml does not list it" in ExitReport.load(refused.out).message
    recipe = tiny(
        folder_of(shards), data__tasks=server.url, data__core=f"{server.url}/bundle.zip", base_eval__allow_incomplete=True
    )
    data = running.run(tmp_path, "data", recipe)
    assert data.code == 0
    assert data.results["missing_task_files"] == []
    task = named("gsm8k", "test", TaskSource.load(Path(data.outputs["tasks"]["path"])))
    assert len(task) == 18
    core = Path(json.loads((data.out / "core/core.json").read_text())["root"])
    assert (core / "core.yaml").is_file()
    requests = server.requests.total()
    assert running.run(tmp_path, "data", recipe).code == 0
    assert server.requests.total() == requests


# -- a user's own conversations --


def test_own_conversations_are_fetched_once_and_all_of_them_are_read_before_the_text(
    shards: list[Path], server: Server, tmp_path: Path
) -> None:
    line = '{"instruction": "Say hi.", "output": "hi"}\n'
    (server.root / "chats.jsonl").write_text(line * 3)
    (tmp_path / "mine.jsonl").write_text(line * 20_000 + "{}\n")
    url = f"{server.url}/chats.jsonl?download=true"
    uses = [{"jsonl": url, "epochs": 2}, {"jsonl": str(tmp_path / "mine.jsonl")}]

    data = running.run(tmp_path, "data", tiny(folder_of(shards), sft__train=uses))
    assert data.code == Exit.BAD_INPUT
    assert "mine.jsonl: 1 of 20,001 rows are no conversation: line 20001: it is no list" in data.events("error")[0]["message"]
    assert data.outputs == {}

    (tmp_path / "mine.jsonl").write_text(line)
    data = running.run(tmp_path, "data", tiny(folder_of(shards), sft__train=uses))
    assert data.code == 0
    assert server.requests["chats.jsonl?download=true"] == 1
    source = TaskSource.load(Path(data.outputs["tasks"]["path"]))
    assert len(load_mixture(tiny(folder_of(shards), sft__train=uses).sft.train, source)) == 3 * 2 + 1


def test_fetched_conversations_of_which_nothing_can_be_learned_are_refused_before_the_text(
    shards: list[Path], server: Server, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "why " * 3000}, {"role": "assistant", "content": "So.", "weight": 0}]
    (server.root / "chats.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    uses = [{"jsonl": f"{server.url}/chats.jsonl"}]
    for field, told in (
        ("sft", "sft.train.0.path: .*every answer has the weight 0"),
        ("mid", "mid.train: no conversation fits the context of .* the shortest of 1 has at least"),
    ):
        data = running.run(tmp_path / field, "data", tiny(folder_of(shards), **{f"{field}__train": uses}))
        assert data.code == Exit.BAD_INPUT
        assert re.search(told, data.events("error")[0]["message"])
        assert data.outputs == {}


def test_the_word_list_is_fetched_if_a_task_needs_it(shards: list[Path], server: Server, tmp_path: Path) -> None:
    (server.root / "words.txt").write_text("\r\n".join(f"wo{a}{b}d" for a in "abcdefghijklmn" for b in "abcdefghijklmn"))
    words = {"data__words": f"{server.url}/words.txt"}
    assert running.run(tmp_path / "without", "data", tiny(folder_of(shards), **words)).code == 0
    assert server.requests.total() == 0

    data = running.run(tmp_path, "data", tiny(folder_of(shards), **words, chat_eval__tasks=["spellingbee"]))
    assert data.code == 0
    assert server.requests["words.txt"] == 1
    source = TaskSource.load(Path(data.outputs["tasks"]["path"]))
    assert source.word_list_file is not None
    assert len(read_word_list(source.word_list_file)) == 14 * 14
    assert len(named("spellingbee", "test", source, size=20)[:]) == 20

    (server.root / "words.txt").write_text("<html>")
    data = running.run(tmp_path / "wrong", "data", tiny(folder_of(shards), **words, chat_eval__tasks=["spellingbee"]))
    assert data.code == Exit.BAD_INPUT
    assert "'<html>' is no word" in data.events("error")[0]["message"]
