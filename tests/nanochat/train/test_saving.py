"""Saving while a whole stage trains: kills and full disks in the middle of a write."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanochat.contract.contract import Exit, ExitReport, verify
from nanochat.train import saver, snapshot

from . import bad_disk

BAD_DISK = [str(Path(bad_disk.__file__))]


def kept(run):
    return sorted(p.name for p in (run.out / "checkpoints").iterdir())


def start_until_write_hangs(run, ranks, file):
    """Start the stage, and return once the write of `file` hangs and training has continued for two steps."""
    run.start(ranks, BAD_DISK, BAD_DISK="still", BAD_FILE=file)
    run.until(lambda _: (run.out / bad_disk.MARK).exists())
    run.until(lambda seen: any(e["kind"] == "progress" and e["done"] >= 12 for e in seen))


def test_killed_while_the_thread_writes(base, trained):
    killed = base("killed", deterministic=True)
    start_until_write_hangs(killed, 1, ".step_000010.draft/model.safetensors")
    killed.kill()
    assert [e["step"] for e in killed.events("checkpoint")] == [5]
    assert kept(killed) == [".step_000010.draft", "step_000005"]
    assert "manifest.json" not in {p.name for p in (killed.out / "checkpoints/.step_000010.draft").iterdir()}
    assert killed.series("loss").items() <= trained.series("loss").items()

    resumed = base("resumed", deterministic=True, resume_from=killed.checkpoint(5))
    assert resumed.in_process() == 0, resumed.events("error")
    assert resumed.series("loss") == {s: v for s, v in trained.series("loss").items() if s > 5}
    one, other = (load_file(run.artifact("model").dir / "model.safetensors") for run in (trained, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_one_of_two_ranks_is_killed_while_it_writes(base):
    killed = base("killed", deterministic=True)
    start_until_write_hangs(killed, 2, ".step_000010.draft/optim_rank1.safetensors")
    killed.rank(1).kill()
    assert killed.wait() != 0
    assert [e["step"] for e in killed.events("checkpoint")] == [5]
    assert [name for name in kept(killed) if not name.startswith(".")] == ["step_000005"]
    files = {p.name for p in verify(killed.checkpoint(5)).iterdir()}
    assert {"optim_rank0.safetensors", "optim_rank1.safetensors", "loader_rank0.json", "loader_rank1.json"} <= files

    resumed = base("resumed", deterministic=True, resume_from=killed.checkpoint(5)).start(2, BAD_DISK)
    assert resumed.wait() == 0, resumed.log()
    before, after = killed.series("loss"), resumed.series("loss")
    assert list(after) == list(range(6, 25))
    assert all(before[step] == after[step] for step in range(6, 13))  # bit for bit the losses of the killed run
    assert resumed.results()["tokens"] == 24 * 256


@pytest.mark.slow
def test_a_full_disk_at_one_of_two_ranks_stops_both(base):
    run = base().start(2, BAD_DISK, BAD_DISK="full", BAD_FILE=".step_000010.draft/optim_rank1.safetensors")
    assert run.wait() != 0
    report = ExitReport.load(run.out)
    assert report.exit_code == Exit.STOPPED, run.log()
    assert "the checkpoint of step 10 could not be written" in report.message
    assert kept(run) == ["step_000005"]
    verify(run.checkpoint(5))


def test_a_checkpoint_written_during_later_steps_is_of_its_own_step(base, monkeypatch):
    run = base(save_every=5, keep_checkpoints=9)

    def write(tensors, path):
        if "step_000005" in str(path):
            run.until(lambda seen: any(e["kind"] == "progress" and e["done"] >= 8 for e in seen))
        save_file(tensors, path)

    monkeypatch.setattr(snapshot, "save_file", write)
    assert run.in_process() == 0
    for directory in (run.out / "checkpoints").iterdir():
        step = int(directory.name.removeprefix("step_"))
        assert json.loads((directory / "train_state.json").read_text())["loop"]["step"] == step
        figure = json.loads((directory / "meta.json").read_text())["val_bpb"]
        assert figure == {s: v for s, v in run.series("val_bpb").items() if s <= step}.popitem()[1]


def test_a_disk_that_fills_up_while_the_thread_writes(base, monkeypatch):
    def write(tensors, path):
        if "step_000010" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_file(tensors, path)

    monkeypatch.setattr(snapshot, "save_file", write)
    run = base()
    assert run.in_process() == Exit.STOPPED
    assert run.error()["code"] == "disk_full"
    assert "step 10" in run.error()["message"]
    assert kept(run) == ["step_000005"]
    verify(run.checkpoint(5))


def test_a_full_disk_stops_the_stage_before_it_writes(base, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(saver.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    run = base()
    assert run.in_process() == Exit.STOPPED
    assert run.error()["code"] == "disk_full"
    assert kept(run) == []


def test_events_report_the_time_of_a_save_and_the_deleted_checkpoints(trained):
    announced = trained.events("checkpoint")
    assert all(e["stall_ms"] > 0 and e["write_s"] > 0 for e in announced)
    deleted = trained.events("checkpoint_deleted")
    assert [e["step"] for e in deleted] == [5, 10, 15]
    assert [e["path"] for e in deleted] == [e["path"] for e in announced[:3]]
