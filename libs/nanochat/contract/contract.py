"""The interface between the model and the platform: what a stage is given, what it writes, and how it ends. Imports no torch.

In: `stage.json` (StageSpec). Out: `events.jsonl`, artifacts below `output_dir`, and `manifest.json`, which is written last.
Stop request: the file `stop` appears in `output_dir`. End: one of the exit codes below. A rank that fails also writes
`exit.<rank>.json`, because torchrun exits with 1 whatever the exit codes of its ranks were.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nanochat.contract import lease
from nanochat.contract.causes import CRASH, PEER_LOST
from nanochat.contract.events import EventLog

SPEC = "stage.json"
EVENTS = "events.jsonl"
MANIFEST = "manifest.json"
STOP = "stop"
EXIT = "exit.{rank}.json"
BALLAST = "ballast"  # a file that takes room on a disk until it is full; then an exit report takes its place

# When several ranks fail, some fail only because another did. These codes say least about the cause, least first. Every
# other code names a cause.
CONSEQUENCES = (PEER_LOST, "stopped", CRASH, "checkpoint_not_written")

# The hint for a missing file that stages read in place: one of the cache, or of a user's folder.
RESTORE = "put the file back, or submit the same recipe once more, whose data stage restores the cache; then retry this stage"


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # a failure that may not happen again, such as a network error; retried within the budget
    BAD_INPUT = 64  # never retried
    NONFINITE = 70  # the loss became NaN or infinite, or training diverged
    STOPPED = 75  # stopped or preempted; the stage can be resumed


class StageError(Exception):
    """Ends a stage with an exit code and a message for people that says what failed, where, and what to do.

    `code` names the cause for programs. The worker maps it to a reason (`services/worker/verdict.py`, a complete table).
    """

    def __init__(self, message: str, *, code: str, hint: str = "", exit_code: Exit = Exit.BAD_INPUT):
        super().__init__(message)
        self.code, self.hint, self.exit_code = code, hint, exit_code


class ExitReport(BaseModel):
    """Content of `exit.<rank>.json`: why that rank failed. `message` and `hint` are for people."""

    exit_code: int
    code: str
    message: str
    hint: str = ""
    rank: int = 0

    @classmethod
    def of(cls, err: StageError, rank: int) -> ExitReport:
        return cls(exit_code=err.exit_code, code=err.code, message=str(err), hint=err.hint, rank=rank)

    @classmethod
    def load(cls, out: Path) -> ExitReport | None:
        """The report that says most about the cause, of equal ones the earliest; None if no rank wrote one."""
        written = sorted(out.glob(EXIT.format(rank="*")), key=lambda path: path.stat().st_mtime_ns)
        reports = [cls.model_validate_json(path.read_bytes()) for path in written]
        return max(reports, key=lambda report: report.weight, default=None)

    @property
    def weight(self) -> int:
        """How much the code says about the cause."""
        return CONSEQUENCES.index(self.code) if self.code in CONSEQUENCES else len(CONSEQUENCES)

    def save(self, out: Path) -> None:
        """Write it unless this rank has written one: its first failure caused the later ones. Raises OSError."""
        path = out / EXIT.format(rank=self.rank)
        if path.exists():
            return
        try:
            write_json(path, self.model_dump())
        except OSError:
            (out / BALLAST).unlink(missing_ok=True)
            write_json(path, self.model_dump())


class Artifact(BaseModel):
    """A directory with a `manifest.json`. The digest of that manifest identifies the content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str

    @property
    def dir(self) -> Path:
        return Path(self.path)


class StageSpec(BaseModel):
    """The content of `stage.json`. Every path is absolute; a stage reads nothing that is not named here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    run: str
    stage: str = Field(description="node of the stage graph, such as chat_eval_mid")
    kind: str = Field(description="the module that runs, such as chat_eval")
    attempt: int = 1
    config: dict[str, Any]
    seed: int = 42
    inputs: dict[str, Artifact] = Field(default_factory=dict)
    output_dir: str
    cache_dir: str = Field(description="downloads and harvested text, shared by all runs on this machine")
    resume_from: Artifact | None = None
    device: str | None = Field(default=None, description="cpu, mps or cuda; null: the best one found")

    @property
    def out(self) -> Path:
        return Path(self.output_dir)


@dataclass(slots=True)
class StageContext:
    """What a stage's `run(ctx)` is given. On ranks other than 0, `events` discards everything."""

    spec: StageSpec
    events: EventLog
    rank: int = 0
    world_size: int = 1
    started_at: float = field(default_factory=time.time)  # unix seconds

    @property
    def out(self) -> Path:
        return self.spec.out

    def stop_requested(self) -> bool:
        """Whether the stop file exists. Ranks must agree before they act on it: ask on rank 0 and broadcast."""
        return (self.out / STOP).exists()

    def may_delete_checkpoints(self) -> bool:
        """Whether this attempt surely still is its stage's current one. Otherwise another may read what it would delete."""
        return lease.may_delete(self.out)

    def input(self, name: str) -> Path:
        """The directory of a declared input, checked against its digest. Raises StageError if it is missing or has changed."""
        artifact = self.spec.inputs.get(name)
        if artifact is None:
            raise StageError(
                f"stage {self.spec.stage} was given no input {name!r}",
                code="input_missing",
                hint="check `inputs` in stage.json",
            )
        return verify(artifact)

    def publish(self, name: str, directory: Path, **meta: Any) -> Artifact:
        """Seal `directory` as an artifact (see `seal`) and announce it. Stages that read it may then start. Rank 0 only."""
        artifact = seal(directory, name=name, stage=self.spec.stage, **meta)
        self.events.emit("artifact", name=name, path=artifact.path, sha256=artifact.sha256)
        return artifact

    def write_result(self, name: str, text: str) -> None:
        """Write a file that is published beside the figures, as a table is. Call it before `publish_results`."""
        directory = self.out / "results"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text, encoding="utf-8")

    def publish_results(self, results: dict[str, Any]) -> Artifact:
        """Publish the stage's figures and its start and end times as the artifact `results`, which the report reads."""
        directory = self.out / "results"
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "results.json", results)
        return self.publish("results", directory, started_at=self.started_at, finished_at=time.time())


# -- artifacts --


def seal(directory: Path, **meta: Any) -> Artifact:
    """Write `manifest.json`, which lists every file below `directory` with its size and sha256. It is written last."""
    paths = [p for p in sorted(directory.rglob("*")) if p.is_file() and p.name != MANIFEST and not p.name.endswith(".tmp")]
    return write_manifest(directory, [file_entry(directory, p, sha256_file(p)) for p in paths], **meta)


def file_entry(directory: Path, path: Path, sha256: str) -> dict[str, Any]:
    """A file's entry in a manifest."""
    return {"path": str(path.relative_to(directory)), "bytes": path.stat().st_size, "sha256": sha256}


def write_manifest(directory: Path, files: list[dict[str, Any]], **meta: Any) -> Artifact:
    """Seal a directory when the digests of its files are already known."""
    write_json(directory / MANIFEST, {"version": 1, **meta, "files": files})
    return Artifact(path=str(directory.resolve()), sha256=sha256_file(directory / MANIFEST))


def artifact_at(directory: Path) -> Artifact:
    """The artifact that `directory` is. Raises StageError if it is not sealed."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        raise StageError(
            f"{directory} is not a sealed artifact: it has no {MANIFEST}",
            code="artifact_missing",
            hint="give a directory that a stage published",
        )
    return Artifact(path=str(directory.resolve()), sha256=sha256_file(manifest))


def verify(artifact: Artifact, *, deep: bool = True) -> Path:
    """The artifact's directory. Raises StageError if its manifest or the size of a file differs; with `deep`, the content too."""
    manifest = read_manifest(artifact)
    for entry in manifest["files"]:
        path = artifact.dir / entry["path"]
        if not path.is_file() or path.stat().st_size != entry["bytes"] or (deep and sha256_file(path) != entry["sha256"]):
            raise StageError(
                f"{path} is missing or not what its manifest says",
                code="artifact_corrupt",
                hint="rerun the stage that made it",
            )
    return artifact.dir


def checkpoint_gone(spec: StageSpec, err: StageError) -> StageError:
    """The error that a retry mends, if the stage failed because the checkpoint it resumes from vanished or broke since it was chosen."""
    if spec.resume_from is None or err.code not in ("artifact_missing", "artifact_corrupt", "checkpoint_corrupt"):
        return err
    try:
        verify(spec.resume_from)
    except (StageError, OSError, ValueError) as gone:
        return StageError(
            f"the checkpoint to resume from cannot be read any more: {gone}",
            code="checkpoint_gone",
            hint="the next attempt resumes from the one before it",
            exit_code=Exit.FAILED,
        )
    return err


def attempts(stage: Path, file: str = "") -> dict[int, Path]:
    """The folders of a stage's attempts by number, the newest first; those that hold `file`."""
    found = {int(p.name.removeprefix("attempt-")): p for p in stage.glob("attempt-*") if (p / file).exists()}
    return dict(sorted(found.items(), reverse=True))


def read_manifest(artifact: Artifact) -> dict[str, Any]:
    """The parsed manifest, checked against the artifact's digest. Raises StageError if it is missing, differs or is none."""
    path = artifact.dir / MANIFEST
    if not path.is_file():
        raise StageError(f"{path} does not exist", code="artifact_missing", hint="rerun the stage that makes it")
    if sha256_file(path) != artifact.sha256:
        raise StageError(
            f"{path} has changed since it was published", code="artifact_corrupt", hint="rerun the stage that made it"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        whole = all({"path", "bytes", "sha256"} <= entry.keys() for entry in manifest["files"])
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise StageError(f"{path} is no manifest", code="artifact_corrupt", hint="rerun the stage that made it")
    found: dict[str, Any] = manifest
    return found


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write the file as `write_text` does."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def write_text(path: Path, text: str) -> None:
    """Write the file atomically: a temporary file in the same folder, fsync, rename."""
    tmp = path.with_name(path.name + ".tmp")
    with tmp.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)
