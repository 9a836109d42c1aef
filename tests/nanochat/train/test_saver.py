"""The saver on its own, with a small model and a disk that the test can block."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanochat.config.recipe import OptimSpec
from nanochat.contract import lease
from nanochat.contract.contract import Artifact, Exit, StageError, sha256_file, verify
from nanochat.contract.events import EventLog, read
from nanochat.contract.lease import Lease, LeaseFile
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.optim import Optimizer
from nanochat.train import saver as module
from nanochat.train import snapshot
from nanochat.train.checkpoint import Resume, load_model
from nanochat.train.saver import RESERVE, Phase, Saver
from nanochat.train.snapshot import Snapshot, write_tensors

ROOT = Path(__file__).parents[3]
ONE_RANK = Ranks(0, 1, torch.device("cpu"))
MODEL = GPTConfig(sequence_len=16, vocab_size=61, n_layer=2, n_head=2, n_kv_head=2, n_embd=16)


class Training:
    """A model in training and its saver. Writing blocks while `disk` is not set."""

    def __init__(self, root, keep=2):
        torch.manual_seed(1)
        self.root, self.log = root, root / "events.jsonl"
        self.model = GPT(MODEL)
        init_weights(self.model)
        self.optimizer = Optimizer(self.model, OptimSpec(), ONE_RANK)
        self.events = EventLog(self.log)
        self.checkpoints = root / "checkpoints"
        self.saver = Saver(
            self.checkpoints,
            stage="base_train",
            model=self.model,
            optimizer=self.optimizer,
            ranks=ONE_RANK,
            events=self.events,
            keep=keep,
            ahead=True,
            may_delete=lambda: lease.may_delete(root),
        )
        self.disk = threading.Event()
        self.disk.set()

    def write(self, tensors, path):
        assert self.disk.wait(60)
        save_file(tensors, path)

    def train(self):
        rows = torch.randint(0, 61, (2, 17))
        self.model(rows[:, :-1], rows[:, 1:]).backward()
        self.optimizer.step(1.0, 0.9)
        self.optimizer.zero_grad()

    def save(self, step, score=None):
        self.saver.save(step, meta={"val_bpb": score}, score=score, loop_state={"step": step}, loader_state={"at": [step]})

    def settle(self):
        self.saver.settle([self.saver.phase])

    def emitted(self, kind):
        return [e for e in read(self.log) if e["kind"] == kind]

    def kept(self):
        return sorted(p.name for p in self.checkpoints.iterdir() if not p.name.endswith(".old"))


@pytest.fixture
def training(tmp_path, monkeypatch):
    training = Training(tmp_path)
    monkeypatch.setattr(snapshot, "save_file", training.write)
    yield training
    training.disk.set()
    training.saver.close()


def state_of(training):
    return (
        {k: v.clone() for k, v in training.model.state_dict().items()},
        {k: v.clone() for k, v in training.optimizer.state().items()},
        torch.get_rng_state(),
    )


def test_a_checkpoint_holds_the_state_at_the_call_of_save(training):
    training.train()
    weights, moments, random = state_of(training)
    training.disk.clear()
    position = {"at": [1]}
    training.saver.save(1, meta={}, score=None, loop_state={"step": 1}, loader_state=position)
    for _ in range(3):  # training continues before the first byte is written
        training.train()
    position["at"].append(2)
    assert not torch.equal(weights["embed.weight"], training.model.embed.weight)
    training.disk.set()
    training.saver.finish()

    directory = training.checkpoints / "step_000001"
    model, _ = load_model(directory, "cpu")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
    resume, other = Resume(directory), Optimizer(model, OptimSpec(), ONE_RANK)
    resume.restore(other, ONE_RANK)
    assert other.steps == 1
    assert all(torch.equal(other.state()[name], value) for name, value in moments.items())
    assert torch.equal(torch.get_rng_state(), random)
    assert resume.loader_states() == [{"at": [1]}]


def test_no_event_and_no_checkpoint_before_everything_is_written(training):
    training.disk.clear()
    training.save(1)
    assert training.saver.phase == Phase.WRITING
    training.settle()
    assert training.kept() == [".step_000001.draft"]
    assert not training.emitted("checkpoint")
    training.disk.set()
    training.saver.finish()
    (event,) = training.emitted("checkpoint")
    directory = verify(Artifact(path=event["path"], sha256=event["sha256"]))
    assert event["bytes"] == sum(p.stat().st_size for p in directory.iterdir())
    files = {f["path"] for f in json.loads((directory / "manifest.json").read_text())["files"]}
    assert files | {"manifest.json"} == {p.name for p in directory.iterdir()}
    assert training.saver.phase == Phase.IDLE


def test_waits_until_every_rank_has_written(training):
    training.save(1)
    module.wait([training.saver._flight.writing])
    training.saver.settle([Phase.WRITTEN, Phase.WRITING])
    assert not training.emitted("checkpoint")
    training.settle()
    assert [e["step"] for e in training.emitted("checkpoint")] == [1]


def test_a_save_waits_for_the_previous_one_and_warns(training):
    training.disk.clear()
    training.save(1)
    threading.Timer(0.05, training.disk.set).start()
    training.save(2)
    assert [e["step"] for e in training.emitted("checkpoint")] == [1]
    (warning,) = training.emitted("warning")
    assert warning["code"] == "save_waited"
    assert "at step 2 for the checkpoint of step 1" in warning["message"]


def test_an_error_while_writing_is_raised_at_the_next_step(training, monkeypatch):
    training.save(1)
    training.saver.finish()

    def fails(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.EIO, "the disk is dying")

    monkeypatch.setattr(snapshot, "save_file", fails)
    training.save(2)
    module.wait([training.saver._flight.writing])
    with pytest.raises(StageError, match=r"step 2 .* the disk is dying") as stop:
        training.settle()
    assert (stop.value.exit_code, stop.value.code) == (Exit.STOPPED, "checkpoint_not_written")
    assert training.kept() == ["step_000001"]


def test_an_error_of_another_rank_ends_this_one_too(training):
    training.save(1)
    with pytest.raises(StageError, match="another process failed"):
        training.saver.settle([Phase.WRITTEN, Phase.FAILED])
    assert training.kept() == []


def test_bytes_that_change_on_their_way_to_the_disk_are_detected(tmp_path, monkeypatch):
    def write(tensors, path):
        save_file({name: value ^ 1 for name, value in tensors.items()}, path)

    monkeypatch.setattr(snapshot, "save_file", write)
    with pytest.raises(OSError, match="does not read back"):
        write_tensors(tmp_path / "a", {"a": torch.arange(9)})


def test_a_file_that_is_truncated_before_it_is_sealed_is_detected(training):
    training.save(1)
    module.wait([training.saver._flight.writing])
    os.truncate(training.checkpoints / ".step_000001.draft" / "model.safetensors", 100)
    with pytest.raises(StageError, match="but the ranks wrote"):
        training.settle()
    assert training.kept() == []


def test_a_written_checkpoint_is_published_although_training_fails(training):
    training.save(1)
    training.saver.close()
    (event,) = training.emitted("checkpoint")
    verify(Artifact(path=event["path"], sha256=event["sha256"]))


def test_figures_of_evaluations_during_the_write_are_published_with_the_checkpoint(training):
    training.disk.clear()
    training.save(1)
    training.saver.describe(1, meta={"val_bpb": 2.0}, score=2.0, loop_state={"step": 1, "visited": 1})
    # Training goes on while the write stands still: the figures of a later step are not those of this checkpoint.
    training.saver.describe(2, meta={"val_bpb": 1.0}, score=1.0, loop_state={"step": 2, "visited": 2})
    training.disk.set()
    training.saver.finish()
    _, meta = load_model(training.checkpoints / "step_000001", "cpu")
    assert (meta["val_bpb"], meta["score"]) == (2.0, 2.0)
    assert Resume(training.checkpoints / "step_000001").loop == {"step": 1, "visited": 1}
    assert [e["val_bpb"] for e in training.emitted("checkpoint")] == [2.0]


def test_the_final_checkpoint_has_the_same_tensors_and_the_latest_figures(training):
    for step, score in ((1, 1.0), (2, 3.0), (3, None)):
        training.save(step, score)
    training.saver.finish()
    assert training.kept() == ["step_000001", "step_000002", "step_000003"]
    weights = training.checkpoints / "step_000003" / "model.safetensors"
    before = weights.stat()
    training.disk.clear()  # no tensor is written again
    meta = {"val_bpb": 0.5}
    training.saver.save(3, meta=meta, score=0.5, loop_state={"step": 3}, loader_state={"at": [3]}, final=True)
    training.saver.finish()
    assert (weights.stat().st_ino, weights.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [(e["step"], e["final"], e["val_bpb"]) for e in training.emitted("checkpoint")][2:] == [
        (3, False, None),
        (3, True, 0.5),
    ]
    last, model = training.emitted("checkpoint")[-1], training.emitted("artifact")[-1]
    assert (last["path"], last["sha256"]) == (model["path"], model["sha256"])
    verify(Artifact(path=model["path"], sha256=model["sha256"]))
    assert load_model(training.checkpoints / "step_000003", "cpu")[1]["val_bpb"] == 0.5
    assert training.kept() == ["step_000002", "step_000003"]  # step 3 turned out to be the best


def save_and_die(root: Path, calls_before: int) -> None:
    """Save step 1 and then its final checkpoint; be killed after `calls_before` changes of a name. Runs in its own process."""
    training = Training(root, keep=1)
    training.save(1)
    training.saver.finish()
    left = [calls_before]

    def killed(do):
        def call(*args):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return do(*args)

        return call

    Path.replace, module.exchange = killed(Path.replace), killed(module.exchange)
    training.saver.save(1, meta={}, score=1.0, loop_state={}, loader_state={}, final=True)
    training.saver.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange two names in one step")
@pytest.mark.parametrize("calls_before", range(4))
def test_a_kill_while_the_final_checkpoint_replaces_the_earlier_one_loses_neither(tmp_path, calls_before):
    """The process is killed just before its first, second, … change of a name. A whole checkpoint of the step always remains."""
    code = f"from tests.nanochat.train.test_saver import *; save_and_die(Path({str(tmp_path)!r}), {calls_before})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    directory = tmp_path / "checkpoints" / "step_000001"
    verify(Artifact(path=str(directory), sha256=sha256_file(directory / "manifest.json")))


def test_a_final_checkpoint_that_cannot_be_published_leaves_the_earlier_one(training, monkeypatch):
    training.save(1)
    training.saver.finish()

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(StageError, match="step 1 could not be written") as stop:
        training.saver.save(1, meta={}, score=1.0, loop_state={}, loader_state={}, final=True)
    assert (stop.value.exit_code, stop.value.code) == (Exit.STOPPED, "disk_full")
    assert training.kept() == ["step_000001"]
    (event,) = training.emitted("checkpoint")
    verify(Artifact(path=event["path"], sha256=event["sha256"]))


def test_keeps_the_last_and_the_best(training):
    for step, score in enumerate((3.0, 1.0, 2.0, 2.5, 2.0), 1):
        training.save(step, score)
    training.saver.finish()
    assert training.kept() == ["step_000002", "step_000004", "step_000005"]
    assert [e["step"] for e in training.emitted("checkpoint_deleted")] == [1, 3]
    for step, score in ((6, 1.0), (7, None), (8, float("nan"))):
        training.save(step, score)
    training.saver.finish()
    assert training.kept() == ["step_000006", "step_000007", "step_000008"]  # of equally good ones the later is the best


def test_nothing_is_deleted_while_the_attempt_may_have_a_successor(tmp_path):
    training = Training(tmp_path, keep=1)
    owner = LeaseFile(training.root)
    times = {"boot": lease.boot_id(), "stop_at": lease.now() + 600, "end_at": lease.now() + 600}
    owner.write(Lease(held_until=lease.now() - 1, **times))
    for step in (1, 2, 3):
        training.save(step, float(step))
    training.saver.finish()
    assert training.kept() == ["step_000001", "step_000002", "step_000003"]
    assert training.emitted("checkpoint_deleted") == []
    owner.write(Lease(held_until=lease.now() + 600, **times))
    training.save(4, 0.0)
    training.saver.finish()
    assert training.kept() == ["step_000004"]
    owner.close()
    training.saver.close()


class Disk:
    """A disk of `size` bytes that holds nothing but the checkpoints."""

    def __init__(self, training, size):
        self.training, self.size = training, size

    def usage(self, _):
        used = sum(p.stat().st_size for p in self.training.checkpoints.rglob("*") if p.is_file())
        return shutil._ntuple_diskusage(self.size, used, self.size - used)


def test_old_checkpoints_are_deleted_early_if_that_frees_enough_space(training, monkeypatch):
    for step in (1, 2):
        training.save(step)
    training.saver.finish()
    one = module._size(training.checkpoints / "step_000001")
    monkeypatch.setattr(module.shutil, "disk_usage", Disk(training, RESERVE + int(2.5 * one)).usage)
    training.save(3)
    assert training.kept() == [".step_000003.draft", "step_000002"]  # the latest always stays
    training.saver.finish()
    assert training.kept() == ["step_000002", "step_000003"]

    monkeypatch.setattr(module.shutil, "disk_usage", Disk(training, RESERVE + int(1.5 * one)).usage)
    with pytest.raises(StageError, match="are needed and") as stop:
        training.save(4)
    assert (stop.value.exit_code, stop.value.code) == (Exit.STOPPED, "disk_full")
    assert training.kept() == ["step_000002", "step_000003"]  # nothing is deleted if that would not be enough


def test_leftovers_of_a_killed_attempt_are_deleted(training):
    for name in (".step_000001.draft", ".step_000009.draft", ".step_000007.old"):
        (training.checkpoints / name).mkdir(parents=True)
        (training.checkpoints / name / "half").write_text("half")
    training.save(1)
    training.saver.finish()
    assert [p.name for p in training.checkpoints.iterdir()] == ["step_000001"]


def test_a_snapshot_is_allocated_once_and_keeps_every_bit():
    held = Snapshot()
    tensors = {
        "a": torch.randn(3, 5).t(),
        "b": torch.tensor(float("nan")),
        "c": torch.randn(7, dtype=torch.bfloat16),
        "d": torch.tensor([True, False, True]),
        "e": torch.get_rng_state(),
    }
    held.take(tensors)
    place = held.tensors["a"].data_ptr()
    held.take({name: value.clone() for name, value in tensors.items()})
    assert held.tensors["a"].data_ptr() == place
    for name, value in tensors.items():
        torch.testing.assert_close(held.tensors[name], value, rtol=0, atol=0, equal_nan=True)
    assert held.nbytes == sum(t.nbytes for t in tensors.values())


def test_safetensors_reads_back_what_was_written(tmp_path):
    held = Snapshot()
    held.take({"a": torch.randn(3, 5), "b": torch.tensor([float("nan"), 1.0]), "c": torch.zeros(0)})
    digest = write_tensors(tmp_path / "a", held.tensors)
    assert digest == sha256_file(tmp_path / "a")
    for name, value in load_file(tmp_path / "a").items():
        torch.testing.assert_close(value, held.tensors[name], rtol=0, atol=0, equal_nan=True)
