"""Why a stage ended, judged by what it left: its exit report, its manifest, and the end of its output."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from controlplane.lifecycle import Reason
from nanochat.contract.causes import CRASH, DISK_FULL, OUT_OF_MEMORY, PEER_LOST, READ_ONLY, STORAGE, code_in, code_of
from nanochat.contract.contract import MANIFEST, Artifact, Exit, ExitReport, StageError, verify
from services.worker.storing import STDOUT

# Codes of input or configuration that no retry can make work.
BAD_INPUT = (
    "artifact_corrupt",
    "artifact_missing",
    "bad_config",
    "bad_conversation",
    "bad_facts",
    "bad_question",
    "bad_reward",
    "bad_start",
    "bad_task",
    "checkpoint_corrupt",
    "config_mismatch",
    "core_bundle",
    "core_missing",
    "core_prompt",
    "empty_corpus",
    "empty_mixture",
    "evaluation_failed",
    "fetch_refused",
    "folder_missing",
    "hub_listing",
    "indivisible_batch",
    "input_missing",
    "letter_tokens",
    "no_evaluation",
    "no_sandbox",
    "no_shards",
    "no_text_column",
    "no_val_shard",
    "no_words",
    "nothing_to_learn",
    "resume_mismatch",
    "shard_changed",
    "shard_missing",
    "shard_unreadable",
    "task_data_changed",
    "task_data_damaged",
    "task_data_missing",
    "task_data_unreadable",
    "task_too_small",
    "tok_train",
    "tokenizer_corrupt",
    "tokenizer_mismatch",
    "tokenizer_missing",
    "vocab_too_large",
)

# Every code that a stage can end with. The code alone decides: how the stage came to run out of disk does not matter.
REASONS: dict[str, Reason] = {
    **dict.fromkeys(BAD_INPUT, Reason.BAD_INPUT),
    "checkpoint_gone": Reason.TRANSIENT,
    "checkpoint_not_written": Reason.TRANSIENT,
    "fetch_failed": Reason.TRANSIENT,
    "reward_failed": Reason.TRANSIENT,
    "round_trip": Reason.TRANSIENT,
    "shard_not_read": Reason.TRANSIENT,
    "nonfinite": Reason.NONFINITE,
    "diverged": Reason.DIVERGED,
    "stopped": Reason.STOPPED,
    CRASH: Reason.CRASHED,
    DISK_FULL: Reason.DISK_FULL,
    READ_ONLY: Reason.READ_ONLY,
    OUT_OF_MEMORY: Reason.CUDA_OOM,
    PEER_LOST: Reason.NCCL_TIMEOUT,
}

# For codes of a newer model's program.
BY_EXIT_CODE: dict[int, Reason] = {
    Exit.BAD_INPUT: Reason.BAD_INPUT,
    Exit.NONFINITE: Reason.NONFINITE,
    Exit.STOPPED: Reason.STOPPED,
    Exit.FAILED: Reason.TRANSIENT,
}

# torchrun exits with 1 whatever its ranks exited with; its summary names the code of the rank that failed first, last.
_RANK_CODE = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)", re.MULTILINE)
TAIL = 64 * 1024  # bytes
PROBE = 64 * 1024  # bytes
_MENDED_BY_PEOPLE = (DISK_FULL, READ_ONLY, OUT_OF_MEMORY)
NO_SPACE = 1 << 20  # bytes free; with less, an end without a report is a full disk: not even the report could be written


@dataclass(frozen=True, slots=True)
class Verdict:
    reason: Reason
    message: str
    exit_code: int | None


def judge(out: Path, outputs: Sequence[str], returncode: int | None, asked: Reason | None) -> Verdict:
    """`returncode` is torchrun's, None if nobody saw it end. `asked` is why the stage was told to stop, None if it was not."""
    if returncode in (0, None) and (out / MANIFEST).is_file():
        fault = missing_output(out, outputs)
        if fault is None:
            return Verdict(Reason.COMPLETED, Reason.COMPLETED.message, 0)
        return Verdict(Reason.BAD_OUTPUT, f"{Reason.BAD_OUTPUT.message} {fault}", returncode)
    if returncode is None:
        return Verdict(asked or Reason.WORKER_LOST, "Its worker's process was killed.", None)
    report = _report(out)
    if report is None or report.code == PEER_LOST:  # a rank that only lost another one does not know the cause
        return _without_report(out, returncode, asked)
    if asked is not None and report.code == "stopped":
        return Verdict(asked, asked.message, report.exit_code)
    reason = REASONS.get(report.code) or BY_EXIT_CODE.get(report.exit_code, Reason.CRASHED)
    said = f"{report.message}{'; ' + report.hint if report.hint else ''}"
    return Verdict(reason, _explained(reason, said), report.exit_code)


def not_launched(err: OSError) -> Verdict:
    """The processes of the stage could not be started."""
    reason = REASONS[code] if (code := code_of(err)) in _MENDED_BY_PEOPLE else Reason.LAUNCH_FAILED
    return Verdict(reason, f"{reason.message} {err}", None)


def missing_output(out: Path, outputs: Sequence[str]) -> str | None:
    """What is wrong with the outputs named in the stage's manifest; None if nothing is."""
    try:
        published = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["outputs"]
        if not isinstance(published, dict):
            raise TypeError("it names no outputs")
    except (OSError, ValueError, KeyError, TypeError) as err:
        return f"{out / MANIFEST} cannot be read: {err}"
    for name in outputs:
        if name not in published:
            return f"The output {name!r} was not published."
        try:
            verify(Artifact(**published[name]), deep=False)
        except (StageError, ValidationError, TypeError) as err:
            return f"The output {name!r}: {err}."
    return None


def _without_report(out: Path, returncode: int, asked: Reason | None) -> Verdict:
    """The one place that reads prose: what libraries printed, and torchrun's summary."""
    tail = _tail(out / STDOUT)
    code = _rank_code(tail, returncode)
    found = code_in(tail)
    if asked is not None:
        return Verdict(asked, asked.message, code)
    if code == Exit.OK:
        return Verdict(Reason.BAD_OUTPUT, f"It ended with 0 but left no {MANIFEST}.", code)
    if found == PEER_LOST and code == -signal.SIGKILL:
        found = None  # the others lost the rank that was killed
    if found is None:
        found = storage_fault(out)
    if found is not None:
        return Verdict(REASONS[found], REASONS[found].message, code)
    if code < 0:
        return Verdict(Reason.KILLED, f"{Reason.KILLED.message} (signal {-code})", code)
    if code in BY_EXIT_CODE and code != Exit.FAILED:
        reason = BY_EXIT_CODE[code]
        return Verdict(reason, reason.message, code)
    return Verdict(Reason.CRASHED, f"It ended with exit code {code}; the end of its log says more.", code)


def storage_fault(out: Path) -> str | None:
    """Whether the disk of the stage is full or read-only now, found by writing a small file; None if neither."""
    folder = next(folder for folder in (out, *out.parents) if folder.exists())
    try:
        if shutil.disk_usage(folder).free < NO_SPACE:
            return DISK_FULL
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\x01" * PROBE)
            file.flush()
            os.fsync(file.fileno())
    except OSError as err:
        return code if (code := code_of(err)) in STORAGE else None
    return None


def _explained(reason: Reason, said: str) -> str:
    """The stage's own words; what to do about a full disk or memory goes before them."""
    return (
        f"{reason.message} {said}".strip()
        if reason in [REASONS[code] for code in _MENDED_BY_PEOPLE]
        else said or reason.message
    )


def _report(out: Path) -> ExitReport | None:
    try:
        return ExitReport.load(out)
    except (OSError, ValueError):
        return None


def _rank_code(tail: str, returncode: int) -> int:
    """The exit code of the rank that failed first, from torchrun's summary; without a summary torchrun's own."""
    found = _RANK_CODE.findall(tail)
    return int(found[-1]) if found else returncode


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
