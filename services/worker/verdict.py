"""Why a stage ended, from what it left: its exit report, its manifest, the end of its output."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from controlplane.lifecycle import Reason
from nanochat.contract.contract import MANIFEST, Artifact, Exit, ExitReport, StageError, verify
from services.worker.relay import STDOUT

# What libraries print when they know the cause better than an exit code can say; the first that is found decides.
SIGNS: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (re.compile(r"CUDA out of memory|OutOfMemoryError"), Reason.CUDA_OOM),
    (re.compile(r"No space left on device|Disk quota exceeded"), Reason.DISK_FULL),
    (re.compile(r"Watchdog caught collective operation timeout|NCCL communicator was aborted"), Reason.NCCL_TIMEOUT),
)

# torchrun ends with 1 whatever its ranks ended with, and names the first one's code in its report.
_RANK_CODE = re.compile(r"^\s*exitcode\s*:\s*(-?\d+)", re.MULTILINE)
TAIL = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    reason: Reason
    message: str
    exit_code: int | None


def judge(out: Path, outputs: Sequence[str], returncode: int | None, asked: Reason | None) -> Verdict:
    """`returncode` is torchrun's, None when nobody saw it end; `asked` is why we told the stage to stop, if we did."""
    if returncode in (0, None) and (out / MANIFEST).is_file():
        fault = missing_output(out, outputs)
        if fault is None:
            return Verdict(Reason.COMPLETED, Reason.COMPLETED.message, 0)
        return Verdict(Reason.BAD_OUTPUT, f"{Reason.BAD_OUTPUT.message} {fault}", returncode)
    if returncode is None:
        return Verdict(asked or Reason.WORKER_LOST, "Its worker's process was killed.", None)
    report, tail = _report(out), _tail(out / STDOUT)
    code = report.exit_code if report else _rank_code(tail, returncode)
    if asked is not None and (code == Exit.STOPPED or report is None):
        return Verdict(asked, asked.message, code)
    said = f"{report.message}{' ' + report.hint if report.hint else ''}" if report else ""
    return Verdict(*_reason(code, report, tail, said), exit_code=code)


def missing_output(out: Path, outputs: Sequence[str]) -> str | None:
    """What is wrong with the outputs that the stage's manifest names, or None."""
    try:
        published = json.loads((out / MANIFEST).read_text(encoding="utf-8"))["outputs"]
    except (OSError, ValueError, KeyError) as err:
        return f"{out / MANIFEST} cannot be read: {err}"
    for name in outputs:
        if name not in published:
            return f"The output {name!r} was not published."
        try:
            verify(Artifact(**published[name]), deep=False)
        except (StageError, ValidationError) as err:
            return f"The output {name!r}: {err}."
    return None


def _reason(code: int, report: ExitReport | None, tail: str, said: str) -> tuple[Reason, str]:
    if code == Exit.OK:
        return Reason.BAD_OUTPUT, f"It ended with 0 but left no {MANIFEST}."
    if code == Exit.BAD_INPUT:
        return Reason.BAD_INPUT, said or Reason.BAD_INPUT.message
    if code == Exit.NONFINITE:
        return Reason.NONFINITE, said or Reason.NONFINITE.message
    if code == Exit.STOPPED:
        return Reason.STOPPED, said or Reason.STOPPED.message
    for pattern, reason in SIGNS:
        if pattern.search(said if report else tail):
            return reason, f"{reason.message} {said}".strip()
    if code < 0 and report is None:
        return Reason.KILLED, f"{Reason.KILLED.message} (signal {-code})"
    if report is not None and report.code != "crash":
        return Reason.TRANSIENT, said
    return Reason.CRASHED, said or f"It ended with exit code {code}; the end of its log says more."


def _report(out: Path) -> ExitReport | None:
    try:
        return ExitReport.load(out)
    except (OSError, ValueError):
        return None


def _rank_code(tail: str, returncode: int) -> int:
    """The code of the rank that failed first, as torchrun reports it last; else torchrun's own."""
    found = _RANK_CODE.findall(tail)
    return int(found[-1]) if found else returncode


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
