"""What an attempt left decides why it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.lifecycle import Reason
from nanochat.contract.contract import MANIFEST, Exit, ExitReport, seal, write_json
from services.worker.verdict import judge

TORCHRUN = """
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  rank      : 1 (local_rank: 1)
  exitcode  : -15 (pid: 8)
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 7)
"""


def failed(out: Path, code: int, kind: str = "crash", message: str = "", hint: str = "") -> None:
    ExitReport(exit_code=code, code=kind, message=message, hint=hint).save(out)


def printed(out: Path, text: str) -> None:
    (out / "stdout.log").write_text(text)


def publish(out: Path, *names: str) -> None:
    outputs = {}
    for name in names:
        (out / name).mkdir()
        (out / name / "data.json").write_text(name)
        outputs[name] = seal(out / name).model_dump()
    write_json(out / MANIFEST, {"outputs": outputs})


def test_done_means_every_declared_output_is_there(tmp_path: Path) -> None:
    publish(tmp_path, "model", "results")
    assert judge(tmp_path, ("model", "results"), 0, None).reason is Reason.COMPLETED
    missing = judge(tmp_path, ("model", "results", "report"), 0, None)
    assert missing.reason is Reason.BAD_OUTPUT
    assert "'report'" in missing.message
    (tmp_path / "model" / "data.json").write_text("longer than before")
    damaged = judge(tmp_path, ("model", "results"), 0, None)
    assert damaged.reason is Reason.BAD_OUTPUT
    assert "data.json" in damaged.message


def test_zero_without_a_manifest_is_not_done(tmp_path: Path) -> None:
    assert judge(tmp_path, (), 0, None).reason is Reason.BAD_OUTPUT


@pytest.mark.parametrize(
    ("code", "kind", "said", "reason"),
    [
        (Exit.BAD_INPUT, "no_text", "no column `text`", Reason.BAD_INPUT),
        (Exit.NONFINITE, "nonfinite", "loss is nan at step 7", Reason.NONFINITE),
        (Exit.STOPPED, "stopped", "stopped at step 7", Reason.STOPPED),
        (Exit.FAILED, "fetch_failed", "503 from the mirror", Reason.TRANSIENT),
        (Exit.FAILED, "crash", "KeyError: 'x'", Reason.CRASHED),
        (Exit.FAILED, "crash", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", Reason.CUDA_OOM),
        (Exit.FAILED, "crash", "OSError: [Errno 28] No space left on device", Reason.DISK_FULL),
    ],
)
def test_the_exit_report_decides(tmp_path: Path, code: int, kind: str, said: str, reason: Reason) -> None:
    failed(tmp_path, code, kind, said, "do this")
    verdict = judge(tmp_path, (), 1, None)
    assert (verdict.reason, verdict.exit_code) == (reason, code)
    assert said in verdict.message
    assert "do this" in verdict.message


def test_without_a_report_torchruns_own_words_tell_the_first_rank_to_fail(tmp_path: Path) -> None:
    printed(tmp_path, TORCHRUN.format(code=-9))
    killed = judge(tmp_path, (), 1, None)
    assert (killed.reason, killed.exit_code) == (Reason.KILLED, -9)
    printed(tmp_path, "Watchdog caught collective operation timeout\n" + TORCHRUN.format(code=-6))
    assert judge(tmp_path, (), 1, None).reason is Reason.NCCL_TIMEOUT
    printed(tmp_path, "")
    assert judge(tmp_path, (), -9, None).reason is Reason.KILLED
    assert judge(tmp_path, (), 1, None).reason is Reason.CRASHED


def test_a_stop_that_was_asked_for_has_the_askers_reason(tmp_path: Path) -> None:
    assert judge(tmp_path, (), -9, Reason.USER_CANCEL).reason is Reason.USER_CANCEL  # killed by us at last
    failed(tmp_path, Exit.STOPPED, "stopped", "stopped as asked")
    assert judge(tmp_path, (), 1, Reason.HOST_DRAIN).reason is Reason.HOST_DRAIN
    publish(tmp_path, "model")
    assert judge(tmp_path, ("model",), 0, Reason.USER_PAUSE).reason is Reason.COMPLETED


def test_an_orphan_that_had_finished_counts(tmp_path: Path) -> None:
    assert judge(tmp_path, ("model",), None, None).reason is Reason.WORKER_LOST
    assert judge(tmp_path, ("model",), None, Reason.USER_CANCEL).reason is Reason.USER_CANCEL
    publish(tmp_path, "model")
    assert judge(tmp_path, ("model",), None, None).reason is Reason.COMPLETED
