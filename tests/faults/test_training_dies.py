"""kill -9 of the training process: a new attempt resumes from the checkpoint, and the run succeeds."""

from __future__ import annotations

import psutil
import pytest

from controlplane import feeds, metrics, views
from controlplane.lifecycle import AttemptStatus, Reason, RunStatus, StageStatus
from tests.faults.test_worker_dies import processes_of
from tests.waiting import until
from tests.worker.platform import Platform

# Every stage of the pipeline, each as small as it can be.
MICRO = {
    "data.source": {"kind": "pydocs", "max_chars": 300_000},
    "data.tok_chars": 200_000,
    "tokenizer.vocab_size": 512,
    "tokenizer.max_chars": 200_000,
    "model.depth": 2,
    "model.seq_len": 64,
    "base.device_batch_size": 4,
    "base.total_batch_size": 256,
    "base.num_iterations": 120,
    "base.save_every": 5,
    "base.eval_every": -1,
    "base.eval_tokens": 256,
    "base.sample_every": -1,
    "base_eval.bpb_tokens": 256,
    "base_eval.core_max_per_task": 1,
    "base_eval.device_batch_size": 4,
    "mid.device_batch_size": 4,
    "mid.total_batch_size": 256,
    "mid.num_iterations": 2,
    "mid.eval_every": -1,
    "mid.eval_tokens": 256,
    "mid.train": [{"task": "spelling", "size": 100}],
    "mid.val": [{"task": "spelling", "split": "test", "size": 20}],
    "sft.device_batch_size": 2,
    "sft.examples_per_step": 2,
    "sft.num_iterations": 2,
    "sft.eval_every": -1,
    "sft.eval_batches": 1,
    "sft.train": [{"task": "identity", "size": 20}],
    "sft.val": [{"task": "identity", "split": "test", "size": 4}],
    "chat_eval.tasks": ["spelling"],
    "chat_eval.max_problems": 2,
    "chat_eval.max_new_tokens": 4,
    "chat_eval.generated_size": 4,
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_trainer_resumes_and_the_run_succeeds(platform: Platform) -> None:
    platform.start_loops()
    platform.start_worker("cpu")
    platform.start_worker("gpu")
    run = platform.submit(**MICRO)

    def saved() -> list[int]:
        with platform.factory.begin() as s:
            return [c.step for c in views.checkpoints(s, run) if c.stage == "base_train"]

    until(lambda: saved() or platform.status(run).is_finished, "the first checkpoint", 400, every=0.01)
    assert platform.stage(run, "base_train").status is StageStatus.RUNNING, platform.run(run).detail
    trainer(run).kill()

    until(lambda: platform.status(run).is_finished, "the end of the run", 1200, every=0.2)
    assert platform.status(run) is RunStatus.SUCCEEDED, platform.run(run).detail
    first, second = platform.stage(run, "base_train").attempts
    assert (first.status, first.reason, first.exit_code) == (AttemptStatus.FAILED, Reason.KILLED, -9)
    assert (second.status, second.reason) == (AttemptStatus.SUCCEEDED, Reason.COMPLETED)
    assert second.resumed_from_step
    assert processes_of(run) == []

    with platform.factory.begin() as s:
        (loss,) = metrics.metrics(s, run, stage="base_train", keys=["loss"], max_points=10_000).series
        (model,) = views.models(s)
        kinds = [e.data["to"] for e in feeds.events(s, run, kinds=["run_status"]).items]
    steps = [p.step for p in loss.points]
    assert steps == sorted(set(steps))  # no step twice, though two attempts went over some
    assert steps[0] <= 1
    assert steps[-1] >= 119
    assert [(g.step, g.attempt) for g in loss.gaps] == [(second.resumed_from_step, 2)]
    assert model.stage == "sft"
    assert kinds == ["RUNNING", "SUCCEEDED"]


def trainer(run: str) -> psutil.Process:
    """The process of the rank, not its parent torchrun."""
    (found,) = [
        p for p in processes_of(run) if "base_train" in p.cmdline() and not any("torch.distributed" in a for a in p.cmdline())
    ]
    return found
