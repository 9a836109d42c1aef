"""The files that an attempt left say why it ended."""

from __future__ import annotations

import ast
import errno
import itertools
import os
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest
import torch
from safetensors import SafetensorError

import nanochat
from controlplane.lifecycle import Reason
from nanochat.__main__ import run as run_stage
from nanochat.contract import causes
from nanochat.contract.contract import MANIFEST, Exit, ExitReport, StageContext, StageError, StageSpec, seal, write_json
from services.worker.verdict import REASONS, judge, not_launched

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


def failed(out: Path, code: int, kind: str = "crash", message: str = "", hint: str = "", rank: int = 0) -> None:
    ExitReport(exit_code=code, code=kind, message=message, hint=hint, rank=rank).save(out)


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
        (Exit.NONFINITE, "diverged", "val_bpb ends at 16.1", Reason.DIVERGED),
        (Exit.STOPPED, "stopped", "stopped at step 7", Reason.STOPPED),
        (Exit.FAILED, "fetch_failed", "503 from the mirror", Reason.TRANSIENT),
        (Exit.FAILED, "crash", "KeyError: 'x'", Reason.CRASHED),
        (Exit.FAILED, "out_of_memory", "base.device_batch_size 8: another process ran out of memory", Reason.CUDA_OOM),
        (Exit.FAILED, "disk_full", "no space left on the disk of /cache while fetching", Reason.DISK_FULL),
        (Exit.STOPPED, "disk_full", "the checkpoint of step 9 could not be written", Reason.DISK_FULL),
        (Exit.STOPPED, "checkpoint_not_written", "the checkpoint of step 9 could not be written", Reason.TRANSIENT),
        (Exit.BAD_INPUT, "a code of next year", "said", Reason.BAD_INPUT),
        (Exit.FAILED, "a code of next year", "said", Reason.TRANSIENT),
        (Exit.FAILED, "crash", "the word OutOfMemoryError proves nothing", Reason.CRASHED),
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


FULL, QUOTA, MEMORY = errno.ENOSPC, errno.EDQUOT, errno.ENOMEM
WAYS = {
    Reason.DISK_FULL: (
        OSError(FULL, os.strerror(FULL)),
        OSError(QUOTA, os.strerror(QUOTA)),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        StageError("no space left on the disk of /cache", code="disk_full", exit_code=Exit.FAILED),
        StageError("the checkpoint of step 5 could not be written", code="disk_full", exit_code=Exit.STOPPED),
    ),
    Reason.READ_ONLY: (
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        SafetensorError("Error while serializing: I/O error: Read-only file system (os error 30)"),
        StageError("the checkpoint of step 5 could not be written", code="read_only", exit_code=Exit.STOPPED),
    ),
    Reason.CUDA_OOM: (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB."),
        MemoryError(),
        OSError(MEMORY, os.strerror(MEMORY)),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        StageError("out of memory: another process ran out of memory", code="out_of_memory", exit_code=Exit.FAILED),
    ),
    Reason.CRASHED: (KeyError("x"), RuntimeError("shapes do not match")),
}


TOLD = ("by the rank itself", "as the cause of another error", "after a rank that lost it", "by its output")
CASES = [
    pytest.param(told, reason, err, id=f"{err!r} {told}")
    for told in TOLD
    for reason, errors in WAYS.items()
    for err in errors
    if told == "by the rank itself" or not isinstance(err, StageError)  # which always leaves a report of its own
]


@pytest.mark.parametrize(("told", "reason", "err"), CASES)
def test_every_way_to_run_out_is_judged_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, reason: Reason, err: Exception
) -> None:
    def stage(_: StageContext) -> None:
        if told == "as the cause of another error":
            raise ValueError("could not go on") from err
        raise err

    monkeypatch.setattr("nanochat.stages.data.run", stage)
    if told == "by its output":
        printed(tmp_path, "".join(traceback.format_exception(err)) + TORCHRUN.format(code=1))
    else:
        if told == "after a rank that lost it":
            failed(tmp_path, Exit.FAILED, "peer_lost", "Connection closed by peer", rank=1)
        here = {"output_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")}
        assert run_stage(StageSpec(run="r", stage="data", kind="data", config={}, **here)) != 0
    verdict = judge(tmp_path, (), 1, None)
    assert verdict.reason is reason
    if told in ("by the rank itself", "after a rank that lost it"):
        assert str(err) in verdict.message


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (OSError(FULL, os.strerror(FULL)), Reason.DISK_FULL),
        (OSError(MEMORY, os.strerror(MEMORY)), Reason.CUDA_OOM),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), Reason.READ_ONLY),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/runs/r"), Reason.READ_ONLY),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), Reason.LAUNCH_FAILED),  # of no file: a socket
        (FileNotFoundError(errno.ENOENT, "python"), Reason.LAUNCH_FAILED),
    ],
)
def test_a_launch_that_runs_out_is_judged_as_a_stage_that_does(err: OSError, reason: Reason) -> None:
    assert not_launched(err).reason is reason


def test_a_disk_so_full_that_no_report_fits_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    assert judge(tmp_path, (), 1, None).reason is Reason.CRASHED
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    assert judge(tmp_path, (), 1, None).reason is Reason.DISK_FULL


def test_a_rank_that_lost_another_does_not_hide_that_it_was_killed(tmp_path: Path) -> None:
    failed(tmp_path, Exit.FAILED, "peer_lost", "Connection closed by peer")
    printed(tmp_path, "RuntimeError: gloo/transport/tcp/pair.cc Connection closed by peer\n" + TORCHRUN.format(code=-9))
    assert judge(tmp_path, (), 1, None).reason is Reason.KILLED
    printed(tmp_path, "RuntimeError: gloo/transport/tcp/pair.cc Connection closed by peer\n" + TORCHRUN.format(code=1))
    assert judge(tmp_path, (), 1, None).reason is Reason.NCCL_TIMEOUT


def test_every_code_that_a_stage_raises_has_its_reason() -> None:
    """The reason also agrees with the exit code, which a person sees who runs a stage by hand."""
    by_exit = {"Exit.BAD_INPUT": {Reason.BAD_INPUT}, "Exit.NONFINITE": {Reason.NONFINITE, Reason.DIVERGED}}
    raised: dict[str, set[str]] = {}
    for code, exit_code in raised_codes():
        raised.setdefault(code, set()).add(exit_code)
    assert set(raised) | {causes.CRASH, causes.PEER_LOST} == set(REASONS)
    for code, exits in raised.items():
        for exit_code in exits:
            if exit_code in by_exit:
                assert REASONS[code] in by_exit[exit_code], code
            else:
                assert REASONS[code] not in {Reason.BAD_INPUT, Reason.NONFINITE, Reason.DIVERGED}, code


def raised_codes() -> Iterator[tuple[str, str]]:
    """(code, exit code as it is written) of every StageError in libs/nanochat; both where one is chosen of two."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(Path(nanochat.__file__).parent.rglob("*.py"))]
    names = {"StageError", *(node.name for tree in trees for node in ast.walk(tree) if is_stage_error(node))}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                words = {keyword.arg: keyword.value for keyword in node.keywords}
                codes, exits = (
                    choices(words["code"]),
                    choices(words.get("exit_code", ast.parse("Exit.BAD_INPUT", mode="eval").body)),
                )
                pairs = zip(codes, exits, strict=True) if len(codes) == len(exits) else itertools.product(codes, exits)
                for code, exit_code in pairs:
                    yield (
                        code.value if isinstance(code, ast.Constant) else getattr(causes, ast.unparse(code)),
                        ast.unparse(exit_code),
                    )


def is_stage_error(node: ast.AST) -> TypeGuard[ast.ClassDef]:
    return isinstance(node, ast.ClassDef) and any(isinstance(base, ast.Name) and base.id == "StageError" for base in node.bases)


def choices(value: ast.expr) -> list[ast.expr]:
    return [value.body, *choices(value.orelse)] if isinstance(value, ast.IfExp) else [value]


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


@pytest.mark.parametrize(
    "manifest", ["[]", "null", '{"outputs": null}', '{"outputs": {"model": 3}}', "{", '{"outputs": {"model": {}}}']
)
def test_a_manifest_of_any_content_is_judged(tmp_path: Path, manifest: str) -> None:
    (tmp_path / MANIFEST).write_text(manifest, encoding="utf-8")
    assert judge(tmp_path, ("model",), 0, None).reason is Reason.BAD_OUTPUT


def test_a_stage_whose_folder_has_gone_is_judged(tmp_path: Path) -> None:
    assert judge(tmp_path / "no" / "folder", ("model",), 1, None).reason is Reason.CRASHED
