"""Which checkpoint an attempt resumes from: what the ledger knows of, and what earlier attempts have left on the store."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from controlplane.claims import Claim, SavedCheckpoint
from nanochat.contract.contract import EVENTS, Artifact, StageError, artifact_at, verify
from nanochat.contract.events import EventLog
from nanochat.planning.graph import STAGES

log = logging.getLogger(__name__)

TRAINING = frozenset(stage.kind for stage in STAGES if stage.trains)
_STEP, _ATTEMPT = re.compile(r"step_(\d+)"), re.compile(r"attempt-(\d+)")


def furthest_intact(claim: Claim, out: Path) -> SavedCheckpoint | None:
    """The furthest checkpoint that is intact on disk, for the attempt that writes to `out`.

    A lost worker may have saved more than it could report, and training deletes the oldest ones.
    """
    found = {(saved.artifact.path, saved.artifact.sha256): saved for saved in (*claim.checkpoints, *_left_behind(out))}
    for saved in sorted(found.values(), key=lambda saved: saved.step, reverse=True):
        if not saved.artifact.dir.is_dir():
            continue
        try:
            verify(saved.artifact)
        except (StageError, OSError, ValueError, KeyError, TypeError) as err:
            log.warning("the checkpoint of step %d is not used: %s", saved.step, err)
        else:
            return saved
    return None


def warn_of_a_start_from_zero(claim: Claim, out: Path) -> None:
    """A later attempt at training that resumes from nothing says so in its events: hours of work are done again."""
    if claim.kind not in TRAINING or claim.fence.attempt_no == 1:
        return
    steps = sorted({saved.step for saved in claim.checkpoints})
    lost = f"the checkpoints of steps {', '.join(map(str, steps))} are gone or damaged" if steps else "none had been saved"
    events = EventLog(out / EVENTS)
    try:
        events.emit(
            "warning",
            code="from_zero",
            message=f"attempt {claim.fence.attempt_no} starts at step 0: there is no checkpoint to resume from, {lost}",
        )
    finally:
        events.close()


def origin_of(checkpoint: Artifact, out: Path) -> tuple[int | None, int | None]:
    """Step of the checkpoint that the attempt at `out` resumed from, and the number of the attempt that saved it, by its path.

    The second is None for another stage's checkpoint, both for a path that does not say.
    """
    folder = checkpoint.dir
    step = _STEP.fullmatch(folder.name)
    if step is None:
        return None, None
    saver = folder.parent.parent
    return int(step[1]), _number_of(saver) if saver.parent == out.parent else None


def _number_of(attempt: Path) -> int | None:
    number = _ATTEMPT.fullmatch(attempt.name)
    return int(number[1]) if number else None


def _left_behind(out: Path) -> Iterator[SavedCheckpoint]:
    """Sealed checkpoints in the folders of this stage's other attempts."""
    for folder in out.parent.glob("attempt-*/checkpoints/step_*"):
        step = _STEP.fullmatch(folder.name)
        if step is None or out in folder.parents:
            continue
        try:
            yield SavedCheckpoint(int(step[1]), artifact_at(folder), _number_of(folder.parent.parent))
        except (StageError, OSError):  # it is not sealed, or is being deleted at this moment
            continue
