"""Which checkpoint a later attempt takes, when an earlier one has saved and deleted more than the ledger knows."""

from __future__ import annotations

from pathlib import Path

from controlplane.claims import Claim, Fence, SavedCheckpoint
from nanochat.contract.contract import EVENTS, MANIFEST, Artifact, seal
from nanochat.contract.events import read
from services.worker.resume import furthest_intact, warn_of_a_start_from_zero


def saved(stage: Path, attempt: int, step: int) -> SavedCheckpoint:
    folder = stage / f"attempt-{attempt}" / "checkpoints" / f"step_{step:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * step)
    return SavedCheckpoint(step, seal(folder))


def claim(*known: SavedCheckpoint, attempt: int = 3, kind: str = "base_train") -> Claim:
    return Claim(Fence("r", 1, 9, attempt), "base_train", kind, {}, 42, {}, (), checkpoints=known)


def gone(stage: Path, step: int) -> SavedCheckpoint:
    return SavedCheckpoint(step, Artifact(path=str(stage / f"attempt-1/checkpoints/step_{step:06d}"), sha256="0" * 64))


def test_what_a_lost_attempt_saved_and_could_not_report_is_found(tmp_path: Path) -> None:
    """The ledger offers 250 and 300; the lost attempt went on, saved 350 and 400, and deleted the others."""
    later = [saved(tmp_path, 1, step) for step in (350, 400)]
    known = claim(gone(tmp_path, 300), gone(tmp_path, 250))
    assert furthest_intact(known, tmp_path / "attempt-3") == later[1]
    (later[1].artifact.dir / "model.safetensors").write_bytes(b"damaged")
    assert furthest_intact(known, tmp_path / "attempt-3") == later[0]


def test_drafts_and_the_attempts_own_folder_are_not_resumed_from(tmp_path: Path) -> None:
    known = saved(tmp_path, 1, 5)
    (saved(tmp_path, 2, 10).artifact.dir / MANIFEST).unlink()
    (tmp_path / "attempt-2/checkpoints/.step_000020.draft").mkdir()
    saved(tmp_path, 3, 30)
    assert furthest_intact(claim(known), tmp_path / "attempt-3") == known


def test_a_checkpoint_whose_manifest_is_no_manifest_is_passed_over(tmp_path: Path) -> None:
    known = saved(tmp_path, 1, 5)
    for step, text in ((10, "{}"), (20, "[]"), (30, "{")):
        (saved(tmp_path, 2, step).artifact.dir / MANIFEST).write_text(text)
    assert furthest_intact(claim(known), tmp_path / "attempt-3") == known


def test_a_start_from_zero_is_a_warning_in_the_events_of_the_attempt(tmp_path: Path) -> None:
    warn_of_a_start_from_zero(claim(gone(tmp_path, 300), gone(tmp_path, 250)), tmp_path)
    (event,) = read(tmp_path / EVENTS)
    assert (event["kind"], event["code"]) == ("warning", "from_zero")
    assert "250, 300" in event["message"]


def test_a_first_attempt_and_a_stage_without_checkpoints_begin_at_zero_without_a_word(tmp_path: Path) -> None:
    warn_of_a_start_from_zero(claim(attempt=1), tmp_path)
    warn_of_a_start_from_zero(claim(kind="data"), tmp_path)
    assert not (tmp_path / EVENTS).exists()
