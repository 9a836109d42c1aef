"""Which attempts of an earlier local run are kept, continued or run anew, and what is said about it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nanochat.config.recipe import resolve
from nanochat.contract.contract import EVENTS, MANIFEST, SPEC, Artifact, StageSpec, seal, write_json
from nanochat.contract.events import EventLog
from nanochat.local.earlier import look
from nanochat.planning import graph


def spec(stage: str = "mid_train", seed: int = 42, inputs: dict[str, str] | None = None, **changes: Any) -> StageSpec:
    recipe = resolve("tiny", {key.replace("__", "."): value for key, value in changes.items()})
    definition = next(s for s in graph.stages(recipe) if s.name == stage)
    digests = inputs if inputs is not None else {"model": "a" * 64}
    return StageSpec(
        run="r",
        stage=stage,
        kind=definition.kind,
        config=graph.config(recipe, definition),
        seed=seed,
        inputs={name: Artifact(path=f"/runs/{digest[:4]}", sha256=digest) for name, digest in digests.items()},
        output_dir="/out",
        cache_dir="/cache",
    )


def attempt(home: Path, number: int, was: StageSpec, *, complete: bool = True, checkpoint: bool = False) -> Path:
    folder = home / f"attempt-{number}"
    folder.mkdir(parents=True)
    write_json(folder / SPEC, was.model_dump(mode="json"))
    if complete:
        (folder / "model").mkdir()
        (folder / "model" / "weights").write_text("w")
        write_json(folder / MANIFEST, {"outputs": {"model": seal(folder / "model").model_dump()}})
    if checkpoint:
        saved = folder / "step_1"
        saved.mkdir()
        artifact = seal(saved)
        events = EventLog(folder / EVENTS)
        events.emit("checkpoint", step=1, path=artifact.path, sha256=artifact.sha256, bytes=1, final=False)
        events.close()
    return folder


def test_a_stage_with_the_same_settings_and_inputs_is_kept(tmp_path: Path) -> None:
    attempt(tmp_path, 1, spec())
    found = look(tmp_path, spec())
    assert (found.kept, list(found.outputs or {})) == (1, ["model"])


FROM: dict[str, Any] = {"from": {"model": "/models/a", "first": "mid_train"}, "rl.enabled": True}


@pytest.mark.parametrize("changes", [{}, FROM], ids=["from text", "from a model"])
def test_every_stage_of_a_run_is_recognized(tmp_path: Path, changes: dict[str, Any]) -> None:
    for stage in graph.stages(resolve("tiny", changes)):
        attempt(tmp_path / stage.name, 1, spec(stage.name, **changes))
        assert look(tmp_path / stage.name, spec(stage.name, **changes)).kept == 1, stage.name
    if changes:
        other = {**FROM, "from": {"model": "/models/b", "first": "mid_train"}}
        assert look(tmp_path / "start", spec("start", **other)).difference == 'from.model is "/models/b", was "/models/a"'


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (spec(mid__num_iterations=7), "mid.num_iterations is 7, was 160"),
        (spec(mid__optim__matrix_lr=0.5), "mid.optim.matrix_lr is 0.5, was 0.02"),
        (spec(seed=1), "seed is 1, was 42"),
        (spec(inputs={"model": "b" * 64}), "what it reads has changed: model"),
        (spec(mid__num_iterations=7, mid__eval_every=3, mid__save_every=2, mid__device_batch_size=8), "and 1 more"),
    ],
)
def test_a_stage_that_differs_runs_anew_and_says_why(tmp_path: Path, now: StageSpec, says: str) -> None:
    attempt(tmp_path, 1, spec())
    attempt(tmp_path, 2, spec(), complete=False, checkpoint=True)
    found = look(tmp_path, now)
    assert (found.last, found.kept, found.outputs, found.checkpoint) == (2, None, None, None)
    assert says in found.difference


def test_only_the_newest_settings_are_kept(tmp_path: Path) -> None:
    """The report shows the newest attempt."""
    attempt(tmp_path, 1, spec())
    attempt(tmp_path, 2, spec(mid__num_iterations=7))
    attempt(tmp_path, 3, spec(mid__num_iterations=7), complete=False)
    assert look(tmp_path, spec()).kept is None
    assert look(tmp_path, spec(mid__num_iterations=7)).kept == 2


def test_an_unfinished_attempt_continues_only_with_the_same_settings(tmp_path: Path) -> None:
    folder = attempt(tmp_path, 1, spec(), complete=False, checkpoint=True)
    found = look(tmp_path, spec())
    assert found.checkpoint is not None
    assert (found.last, found.kept, found.checkpoint.path) == (1, None, str(folder / "step_1"))


def test_settings_that_decide_nothing_and_those_of_an_older_program_do_not_count(tmp_path: Path) -> None:
    old = spec()
    del old.config["mid"]["enabled"]  # a field that a program of before did not write
    attempt(tmp_path, 1, old)
    now = spec()
    now.config["recipe"] = "another_name"
    assert look(tmp_path, now).kept == 1
    words = spec("data", inputs={}, mid__train=[{"task": "identity"}])
    attempt(tmp_path / "data", 1, spec("data", inputs={}))
    assert words.config["generated"] != spec("data", inputs={}).config["generated"]
    assert look(tmp_path / "data", words).kept == 1


def test_outputs_that_are_gone_are_made_again(tmp_path: Path) -> None:
    folder = attempt(tmp_path, 1, spec())
    (folder / "model" / "weights").unlink()
    found = look(tmp_path, spec())
    assert (found.kept, found.difference) == (None, "its outputs are gone or damaged")


def test_the_data_stage_runs_anew_when_the_text_changes(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.jsonl").write_text("{}")
    now = spec("data", inputs={}, data__source={"kind": "folder", "path": str(text)})
    began = attempt(tmp_path / "data", 1, now) / SPEC
    later = began.stat().st_mtime_ns + 10**9
    os.utime(began, ns=(later, later))
    assert look(tmp_path / "data", now).kept == 1
    os.utime(text / "a.jsonl", ns=(later + 1, later + 1))
    assert look(tmp_path / "data", now).difference == "files of data.source.path have changed"
