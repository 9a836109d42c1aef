"""`cache/` deleted during an unfinished run: the stage names what is missing, and resumes once a data stage has restored it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanochat.__main__ import run as run_stage
from nanochat.config.recipe import resolve
from nanochat.contract import events
from nanochat.contract.contract import EVENTS, Artifact, Exit, StageSpec
from nanochat.planning import graph
from tests.worker.shards import shard_server


@pytest.fixture(params=["fetched", "harvested"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    """The origin of the text, as overrides of a recipe."""
    if request.param == "harvested":
        yield {"data.source": {"kind": "pydocs", "max_chars": 100_000}, "data.tok_chars": 50_000}
        return
    with shard_server(tmp_path / "served") as server:
        yield server.overrides


def data_stage(source: dict[str, object], out: Path, cache: Path) -> Artifact:
    recipe = resolve("tiny", source)
    stage = next(s for s in graph.stages(recipe) if s.name == "data")
    where = {"output_dir": str(out), "cache_dir": str(cache)}
    assert run_stage(StageSpec(run=out.name, stage="data", kind="data", config=graph.config(recipe, stage), **where)) == 0
    (shards,) = (e for e in events.read(out / EVENTS) if e["kind"] == "artifact" and e["name"] == "shards")
    return Artifact(path=shards["path"], sha256=shards["sha256"])


def test_a_run_resumes_after_its_cache_was_deleted_and_restored(base, source, tmp_path):
    shards, cache = data_stage(source, tmp_path / "data", tmp_path / "cache"), tmp_path / "cache"

    def attempt(name, **changes):
        run = base(name, sample_every=-1, eval_every=-1, save_every=-1, **changes)
        run.inputs = {**run.inputs, "shards": shards}
        return run

    stopped = attempt("stopped")
    watcher = stopped.stop_after(3)
    assert stopped.in_process() == Exit.STOPPED
    watcher.join()
    saved = stopped.events("checkpoint")[-1]["step"]
    shutil.rmtree(cache)

    failed = attempt("failed", resume_from=stopped.checkpoint(saved))
    assert failed.in_process() == Exit.BAD_INPUT
    assert failed.error()["code"] == "shard_missing"
    assert str(cache) in failed.error()["message"]
    assert "submit the same recipe once more" in failed.error()["hint"]

    data_stage(source, tmp_path / "data of another run", cache)
    retried = attempt("retried", resume_from=stopped.checkpoint(saved))
    assert retried.in_process() == 0, retried.error()
    assert list(retried.series("loss")) == list(range(saved + 1, 25))
