"""The seam between the model and the platform: what a stage is given, what it leaves, how it ends. Imports no torch.

In: `stage.json` (StageSpec). Out: `events.jsonl`, artifacts under `output_dir`, and `manifest.json` written last.
Stop: the file `stop` appears in `output_dir`. Exit: one of the codes below, and `exit.json` when it is not 0, because
torchrun ends with 1 whatever its ranks ended with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nanochat.contract.events import EventLog

SPEC = "stage.json"
EVENTS = "events.jsonl"
MANIFEST = "manifest.json"
STOP = "stop"
EXIT = "exit.json"


class Exit(IntEnum):
    OK = 0
    FAILED = 1  # a fault that may pass, as a network or disk error; retried within the budget
    BAD_INPUT = 64  # never retried
    NONFINITE = 70  # the loss became NaN or infinite
    STOPPED = 75  # stopped or preempted; resumable


class StageError(Exception):
    """Ends a stage with an exit code and a message for people: what, where, what to do."""

    def __init__(self, message: str, *, code: str, hint: str = "", exit_code: Exit = Exit.BAD_INPUT):
        super().__init__(message)
        self.code, self.hint, self.exit_code = code, hint, exit_code


class ExitReport(BaseModel):
    """Content of `exit.json`: why the first rank that failed did so. `message` and `hint` are for people."""

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
        """The report in a stage's output directory; None when the stage succeeded or died without a word."""
        path = out / EXIT
        return cls.model_validate_json(path.read_bytes()) if path.is_file() else None

    def save(self, out: Path) -> None:
        """Write it unless another rank already has: the first failure is the cause, the others follow from it."""
        tmp = out / f"{EXIT}.{os.getpid()}.tmp"
        tmp.write_text(self.model_dump_json(), encoding="utf-8")
        with contextlib.suppress(FileExistsError):
            os.link(tmp, out / EXIT)
        tmp.unlink()


class Artifact(BaseModel):
    """A directory with a `manifest.json`, named by the digest of that manifest: content is named, never guessed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sha256: str

    @property
    def dir(self) -> Path:
        return Path(self.path)


class StageSpec(BaseModel):
    """The content of `stage.json`. Every path is absolute; nothing is looked for anywhere else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    run: str
    stage: str = Field(description="node of the graph, as chat_eval_mid")
    kind: str = Field(description="what runs, as chat_eval")
    attempt: int = 1
    config: dict[str, Any]
    seed: int = 42
    inputs: dict[str, Artifact] = Field(default_factory=dict)
    output_dir: str
    cache_dir: str = Field(description="downloads and harvested text shared by all runs on this machine")
    resume_from: Artifact | None = None
    device: str | None = Field(default=None, description="cpu, mps or cuda; null chooses")

    @property
    def out(self) -> Path:
        return Path(self.output_dir)


@dataclass(slots=True)
class StageContext:
    """What a stage's `run(ctx)` works with. On ranks other than 0 `events` swallows everything."""

    spec: StageSpec
    events: EventLog
    rank: int = 0
    world_size: int = 1
    started_at: float = field(default_factory=time.time)  # unix seconds

    @property
    def out(self) -> Path:
        return self.spec.out

    def stop_requested(self) -> bool:
        """True on this rank once the stop file exists. Ranks must agree: ask on rank 0 and broadcast."""
        return (self.out / STOP).exists()

    def input(self, name: str) -> Path:
        """The directory of a declared input, checked against its digest. Raises StageError when it is missing or changed."""
        artifact = self.spec.inputs.get(name)
        if artifact is None:
            raise StageError(
                f"stage {self.spec.stage} was given no input {name!r}",
                code="input_missing",
                hint="check `inputs` in stage.json",
            )
        return verify(artifact)

    def publish(self, name: str, directory: Path, **meta: Any) -> Artifact:
        """Seal `directory` as an artifact (see `seal`) and announce it; consumers may start at once. Rank 0 only."""
        artifact = seal(directory, name=name, stage=self.spec.stage, **meta)
        self.events.emit("artifact", name=name, path=artifact.path, sha256=artifact.sha256)
        return artifact

    def publish_results(self, results: dict[str, Any]) -> Artifact:
        """The stage's figures as the artifact `results` (`results.json`), which the report reads, with when it ran."""
        directory = self.out / "results"
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "results.json", results)
        return self.publish("results", directory, started_at=self.started_at, finished_at=time.time())


# -- artifacts --


def seal(directory: Path, **meta: Any) -> Artifact:
    """Write `manifest.json` last (temp, fsync, rename), naming every file below `directory` with size and sha256.

    Files that a manifest lists as `external` (path, bytes, sha256 or null) live elsewhere, as shared data shards do.
    """
    paths = [p for p in sorted(directory.rglob("*")) if p.is_file() and p.name != MANIFEST and not p.name.endswith(".tmp")]
    return write_manifest(directory, [file_entry(directory, p, sha256_file(p)) for p in paths], **meta)


def file_entry(directory: Path, path: Path, sha256: str) -> dict[str, Any]:
    """How a manifest names a file."""
    return {"path": str(path.relative_to(directory)), "bytes": path.stat().st_size, "sha256": sha256}


def write_manifest(directory: Path, files: list[dict[str, Any]], **meta: Any) -> Artifact:
    """Seal a directory whose files' digests are known already."""
    write_json(directory / MANIFEST, {"version": 1, **meta, "files": files})
    return Artifact(path=str(directory.resolve()), sha256=sha256_file(directory / MANIFEST))


def verify(artifact: Artifact, *, deep: bool = True) -> Path:
    """The artifact's directory. Raises StageError when its manifest, or (deep) a file's size or content, is not as named."""
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


def read_manifest(artifact: Artifact) -> dict[str, Any]:
    """The parsed manifest, checked against the artifact's digest. Raises StageError."""
    path = artifact.dir / MANIFEST
    if not path.is_file():
        raise StageError(f"{path} does not exist", code="artifact_missing", hint="rerun the stage that makes it")
    if sha256_file(path) != artifact.sha256:
        raise StageError(
            f"{path} has changed since it was published", code="artifact_corrupt", hint="rerun the stage that made it"
        )
    manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return manifest


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write whole or not at all: temp file in the same folder, fsync, rename."""
    tmp = path.with_name(path.name + ".tmp")
    with tmp.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    tmp.replace(path)
