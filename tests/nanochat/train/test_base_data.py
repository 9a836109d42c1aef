"""The data of pretraining: the recipe's switches, and shards that are damaged while training runs."""

import shutil
import threading
from pathlib import Path

import pytest

from nanochat.contract.contract import Exit, seal
from nanochat.data.shards import Shard, ShardIndex, write_index


def test_rows_that_begin_documents_train_and_resume_bit_for_bit(base, trained):
    changes = {"packing": "bos_aligned", "shuffle": True, "deterministic": True, "num_iterations": 12, "sample_every": -1}
    whole, stopped = base("whole", **changes), base("stopped", **changes, save_every=-1)
    assert whole.in_process() == 0, whole.events("error")
    losses = whole.series("loss")
    assert losses[12] < losses[1]
    assert losses != {step: value for step, value in trained.series("loss").items() if step <= 12}
    assert whole.series("val_bpb")[0] == trained.series("val_bpb")[0]  # the same validation rows, in the same order
    assert 0 < whole.series("cropped_pct")[12] < 100
    assert not trained.series("cropped_pct")

    watcher = stopped.stop_after(3)
    assert stopped.in_process() == Exit.STOPPED
    watcher.join()
    step = stopped.events("checkpoint")[-1]["step"]
    resumed = base("resumed", **changes, resume_from=stopped.checkpoint(step))
    assert resumed.in_process() == 0, resumed.events("error")
    for series in ("loss", "cropped_pct"):
        assert resumed.series(series) == {s: v for s, v in whole.series(series).items() if s > step}

    other = base("other", **{**changes, "packing": "stream"}, resume_from=stopped.checkpoint(step))
    assert other.in_process() == Exit.BAD_INPUT
    assert "loader 'bos_aligned'" in other.error()["message"]


def test_validation_rows_may_begin_documents_too(base, trained):
    run = base(val_packing="bos_aligned", num_iterations=1, sample_every=-1)
    assert run.in_process() == 0, run.events("error")
    assert run.series("loss")[1] == pytest.approx(trained.series("loss")[1])
    assert run.series("val_bpb")[0] != trained.series("val_bpb")[0]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def damage(path: Path) -> None:
    data = path.read_bytes()
    footer = 8 + int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:4] + bytes(len(data) - 4 - footer) + data[-footer:])


@pytest.mark.parametrize("spoil", [Path.unlink, truncate, damage])
def test_a_shard_that_is_damaged_while_training_is_named(base, inputs, tmp_path, spoil):
    index = ShardIndex.load(inputs["shards"].dir)
    train = [Path(shutil.copy(path, tmp_path)) for path in index.train]
    write_index(tmp_path / "shards", *([Shard(str(p), p.stat().st_size) for p in part] for part in (train, index.val)))
    run = base(num_iterations=5000, sample_every=-1, eval_every=-1)
    run.inputs = {**inputs, "shards": seal(tmp_path / "shards")}

    def watch() -> None:
        run.until(lambda seen: any(e["kind"] == "checkpoint" for e in seen))
        for path in train:
            spoil(path)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert run.in_process() == Exit.BAD_INPUT
    watcher.join()
    error = run.error()
    assert error["code"] == ("shard_missing" if spoil is Path.unlink else "shard_unreadable")
    assert any(str(path) in error["message"] for path in train)
    assert run.checkpoint(run.events("checkpoint")[-1]["step"]).dir.is_dir()
