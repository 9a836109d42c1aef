"""Problems of a recipe that are found before any work, by field."""

import json
from pathlib import Path
from typing import Any

import pytest

from nanochat.config.recipe import resolve
from nanochat.data import core_bundle
from nanochat.data.shards import write_shard
from nanochat.planning import preflight
from tests.nanochat.conftest import write_bundle

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def problems(recipe: str = "tiny", **overrides: object) -> dict[str, str]:
    return dict(preflight.check(resolve(recipe, {key.replace("__", "."): value for key, value in overrides.items()})))


def test_shipped_recipes_have_no_problems() -> None:
    for name in ("tiny", "speedrun", "d26", "run1000"):
        assert problems(name) == {}


def test_a_folder_of_text_must_hold_shards(tmp_path: Path) -> None:
    source = {"kind": "folder", "path": str(tmp_path)}
    assert "holds no .parquet" in problems(data__source=source)["data.source.path"]
    write_shard(tmp_path / "a.parquet", ["text"])
    assert "a.parquet holds one document" in problems(data__source=source)["data.source.path"]
    write_shard(tmp_path / "b.parquet", ["text"])
    assert problems(data__source=source) == {}
    assert "no column 'body'" in problems(data__source={**source, "column": "body"})["data.source.column"]
    missing = {"kind": "folder", "path": str(tmp_path / "none")}
    assert "no folder" in problems(data__source=missing)["data.source.path"]


def test_an_http_source_needs_a_url_and_numbered_names() -> None:
    assert "data.source.base_url" in problems("speedrun", data__source={"kind": "http", "base_url": "ftp://x"})
    assert "data.source.name" in problems("speedrun", data__source={"kind": "http", "name": "shard.parquet"})
    assert "data.source.name" in problems("speedrun", data__source={"kind": "http", "name": "{other}.parquet"})


def test_mixtures_that_need_task_data_are_refused_without_it() -> None:
    found = problems("speedrun", data__tasks=None)
    assert set(found) == {
        *(f"mid.train.{i}" for i in (0, 1, 2)),
        *(f"mid.val.{i}" for i in (0, 1, 2)),
        *(f"sft.train.{i}" for i in (0, 1, 2, 3)),
        "sft.val.0",
        "chat_eval.tasks",
    }
    assert "smoltalk/train needs task data, but data.tasks is none" in found["mid.train.0"]


def test_a_folder_of_task_data_must_hold_the_splits(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/train.jsonl").write_text("{}\n")
    use = [{"task": "gsm8k"}]
    assert problems(data__tasks=str(tmp_path), sft__train=use) == {}
    assert (
        "gsm8k/test is not in the folder" in problems(data__tasks=str(tmp_path), chat_eval__tasks=["gsm8k"])["chat_eval.tasks"]
    )
    assert "no folder" in problems(data__tasks=str(tmp_path / "none"))["data.tasks"]
    assert (
        "no split 'dev'" in problems(data__tasks=str(tmp_path), sft__train=[{"task": "gsm8k", "split": "dev"}])["sft.train.0"]
    )


def test_a_file_of_conversations_is_read_before_the_run(tmp_path: Path) -> None:
    def found(place: Path) -> dict[str, str]:
        return problems(sft__train=[{"task": "identity"}, {"jsonl": str(place), "epochs": 2}])

    chats = tmp_path / "a.jsonl"
    assert "path" in problems(sft__train=[{"task": "jsonl"}])["sft.train.0.path"]
    assert "no file" in found(chats)["sft.train.1.path"]
    chats.write_text("\n")
    assert "holds no conversation" in found(chats)["sft.train.1.path"]
    chats.write_text('{"instruction": "Say hi.", "output": "hi"}\n\n{"instruction": "Say hi."}\n')
    text = found(chats)["sft.train.1.path"]
    assert f"{chats}: 1 of 2 rows are no conversation: line 3: its output is null" in text
    assert "nanochat data check" in text
    chats.write_text('{"instruction": "Say hi.", "output": "hi"}\n')
    assert found(chats) == {}
    assert problems(mid__train=[{"jsonl": str(tmp_path / "none")}], mid__enabled=False) == {}


def test_what_a_task_would_not_read_is_refused(tmp_path: Path) -> None:
    chats = tmp_path / "a.jsonl"
    chats.write_text('{"instruction": "Say hi.", "output": "hi"}\n')
    found = problems(sft__train=[{"task": "identity", "jsonl": str(chats)}, {"jsonl": str(chats), "size": 5}])
    assert set(found) == {"sft.train.0.path", "sft.train.1.size"}
    assert "`limit`" in found["sft.train.1.size"]


def test_a_file_of_which_sft_learns_nothing_is_refused_in_sft(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!", "weight": 0}]
    untaught = json.dumps({"messages": turns}) + "\n"
    one, none, long = (tmp_path / name for name in ("one.jsonl", "none.jsonl", "long.jsonl"))
    one.write_text(untaught + json.dumps({"messages": [turns[0], {"role": "assistant", "content": "Hello!"}]}) + "\n")
    none.write_text(untaught)
    long.write_text(untaught * (preflight.CHECKED_ROWS + 1))  # nobody has read all of it
    of = {path: [{"jsonl": str(path)}] for path in (one, none, long)}
    assert problems(mid__train=of[none], sft__train=of[one], sft__val=of[long]) == {}
    assert "every answer has the weight 0" in problems(sft__train=of[none])["sft.train.0.path"]


def test_evaluations_have_names_of_their_own_and_files(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "a?", "answer": "b"}\n')
    mine = {"jsonl": str(tmp_path / "q.jsonl")}
    own = [{"name": "a", **mine}, {"name": "a", **mine}, {"name": "chatcore", **mine}]
    assert set(problems(chat_eval__own=own)) == {"chat_eval.own.1.name", "chat_eval.own.2.name"}
    assert "is a URL" in problems(chat_eval__own=[{"name": "a", "jsonl": "http://h/q.jsonl"}])["chat_eval.own.0.jsonl"]


HOMELESS = "~no_such_user/x"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sft__train": [{"jsonl": HOMELESS}]}, "sft.train.0.path"),
        ({"chat_eval__own": [{"name": "a", "jsonl": HOMELESS}]}, "chat_eval.own.0.jsonl"),
        ({"data__tasks": HOMELESS}, "data.tasks"),
        ({"data__core": HOMELESS}, "data.core"),
        ({"data__words": HOMELESS}, "data.words"),
        ({"data__source": {"kind": "folder", "path": HOMELESS}}, "data.source.path"),
        ({"from": {"model": HOMELESS}}, "from.model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_home_of_nobody_is_a_place_that_does_not_exist(changes: dict[str, Any], field: str) -> None:
    assert HOMELESS in problems(**changes)[field]


def test_what_is_left_out_needs_no_data() -> None:
    found = problems("speedrun", data__tasks=None, mid__enabled=False, chat_eval__enabled=False)
    assert set(found) == {*(f"sft.train.{i}" for i in (0, 1, 2, 3)), "sft.val.0"}


def test_tasks_with_a_word_list_need_one(tmp_path: Path) -> None:
    use = [{"task": "spellingbee"}]
    assert "spellingbee needs words, but data.words is none" in problems(sft__train=use)["sft.train.0"]
    assert "spellingbee needs words" in problems(chat_eval__tasks=["sums", "spellingbee"])["chat_eval.tasks"]
    assert "no file /none.txt" in problems(sft__train=use, data__words="/none.txt")["data.words"]
    (tmp_path / "words.txt").write_text("word\n" * 100)
    assert problems(sft__train=use, data__words=str(tmp_path / "words.txt")) == {}
    assert problems(sft__train=use, data__words="https://example.org/words.txt") == {}


def test_absent_data_of_a_judged_task_are_allowed_only_by_the_recipe(tmp_path: Path) -> None:
    assert "gsm8k/test is not in" in problems(data__tasks=str(tmp_path), chat_eval__tasks=["gsm8k"])["chat_eval.tasks"]
    assert problems(data__tasks=str(tmp_path), chat_eval__tasks=["gsm8k", "sums"], chat_eval__allow_incomplete=True) == {}


def test_rl_needs_the_data_set_of_its_task() -> None:
    assert "rl.task" in problems(rl__enabled=True, rl__task="gsm8k")
    assert problems(rl__enabled=True, rl__task="sums") == {}


def test_a_core_folder_needs_its_config(tmp_path: Path) -> None:
    assert "no core.yaml" in problems(data__core=str(tmp_path))["data.core"]
    assert "no folder" in problems(data__core=str(tmp_path / "none"))["data.core"]
    (tmp_path / "core.yaml").write_text("")
    assert "is not a CORE bundle" in problems(data__core=str(tmp_path))["data.core"]


def test_what_a_core_bundle_lacks_is_named_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle")
    told = problems(data__core=str(folder))["data.core"]
    assert "hellaswag_zeroshot: core.yaml does not list it" in told
    assert told.endswith("and 19 more; complete the bundle, or set base_eval.allow_incomplete")
    assert problems(data__core=str(folder), base_eval__allow_incomplete=True) == {}
    assert core_bundle.problems(folder)["coqa"].endswith("missing.jsonl")
    assert "has 9 of 100 rows" in core_bundle.problems(folder)["copa"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"{half a li", "is not JSON"),
        (b'{"query": "\xff"}', "is not UTF-8"),
        (b"[1]", "is not an object"),
        (b'{"query": "a", "choices": ["b"], "gold": 0}', "has no list of at least two texts 'choices'"),
        (b'{"query": "a", "choices": ["b", "c"], "gold": 2}', "has gold 2"),
        (b'{"query": 1, "choices": ["b", "c"], "gold": 1}', "has no text 'query'"),
    ],
)
def test_a_damaged_line_of_a_core_task_is_named(tmp_path: Path, line: bytes, problem: str) -> None:
    folder = write_bundle(tmp_path / "bundle")
    file = folder / "eval_data/c.jsonl"
    file.write_bytes(file.read_bytes() + line + b"\n")
    assert f"c.jsonl line 10 {problem}" in core_bundle.problems(folder)["copa"]
    assert "has 10 of 100 rows" in core_bundle.problems(folder, lines=5)["copa"], "beyond the lines that are read at once"


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_the_speedrun_on_the_shared_data_has_no_problems() -> None:
    source = {"kind": "folder", "path": str(SHARED / "pretrain_small")}
    places = {"data__source": source, "data__tasks": str(SHARED), "data__core": str(SHARED / "core")}
    assert "coqa: no file" in problems("speedrun", **places)["data.core"]
    assert problems("speedrun", **places, base_eval__allow_incomplete=True) == {}


def test_a_mixture_that_is_longer_than_the_context_in_every_row_is_refused(tmp_path: Path) -> None:
    def write(name: str, *words: int) -> list[dict[str, Any]]:
        rows = [{"messages": [{"role": "user", "content": "why " * n}, {"role": "assistant", "content": "So."}]} for n in words]
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [{"jsonl": str(tmp_path / name)}]

    one, long, fits = write("one.jsonl", 300, 400), write("long.jsonl", 500), write("fits.jsonl", 500, 90, 600)
    small = {"model__seq_len": 256}
    assert problems(**small, sft__train=[*one, *long]) == {
        "sft.train": "no conversation fits the context of 257 tokens: the shortest of 3 has at least 306; "
        "raise model.seq_len, or use shorter conversations; `nanochat data check FILE` shows their lengths"
    }
    assert set(problems(**small, mid__train=long)) == {"mid.train"}
    assert problems(**small, sft__train=[*one, *fits]) == {}
    assert set(problems(**small, sft__train=[*one, {**fits[0], "limit": 1}])) == {"sft.train"}
    assert problems(**small, sft__train=[*one, {"task": "spelling"}]) == {}, "generated rows are short"
    assert problems(**small, sft__val=long) == {}, "a validation row is cut"
