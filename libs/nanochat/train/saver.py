"""Save checkpoints while training continues (docs/decisions/0004).

1. At a step boundary, every rank copies its part to host memory and then continues to train.
2. A thread of each rank writes the copy into a draft folder, syncs it and reads it back.
3. Once all ranks have written, rank 0 seals the draft with a manifest and renames it. A kill at any moment therefore leaves
   the earlier checkpoints, and never half a checkpoint.

Collectives from two threads are not safe, so the writing threads use none. Instead, each rank's `Phase` is part of the
collective that every training step makes anyway.
"""

from __future__ import annotations

import copy
import errno
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path

from nanochat.contract.causes import DISK_FULL, READ_ONLY, code_of
from nanochat.contract.contract import (
    MANIFEST,
    Artifact,
    Exit,
    StageError,
    file_entry,
    sha256_file,
    write_json,
    write_manifest,
)
from nanochat.contract.events import EventLog
from nanochat.distributed import Ranks
from nanochat.model import GPT
from nanochat.optim import Optimizer
from nanochat.train.checkpoint import FORMAT, META, MODEL, TRAIN_STATE, Json, loader_file, optim_file, random_state
from nanochat.train.snapshot import Snapshot, sync, write_tensors
from nanochat.train.swap import exchange

RESERVE = 64 << 20  # bytes that stay free beside a new checkpoint, for events and logs


class Phase(IntEnum):
    """How far one rank is with its part of the save in flight."""

    IDLE = 0
    WRITING = 1
    WRITTEN = 2
    FAILED = 3


@dataclass(slots=True)
class Flight:
    """A save in flight. Training stood still for `stall_s` seconds because of it.

    Rank 0 writes `documents` (file name -> content) when it publishes the save, so that evaluations at the same step can still
    add to them. `writing` writes this rank's part of all other files; its result is the seconds that this took.
    """

    step: int
    draft: Path
    documents: dict[str, Json]
    final: bool
    writing: Future[float]
    stall_s: float

    @property
    def phase(self) -> Phase:
        if not self.writing.done():
            return Phase.WRITING
        return Phase.FAILED if self.writing.exception() else Phase.WRITTEN


class Saver:
    """Saves checkpoints below `root`, one at a time, and keeps the latest `keep` and the one with the best score.

    Every rank has a `Saver` and calls `save`, `settle` and `finish` at the same points. With `ahead`, host memory is allocated
    now, so that the first save does not stall training longer than later ones. While `may_delete` says no, every checkpoint stays.
    """

    def __init__(
        self,
        root: Path,
        *,
        stage: str,
        model: GPT,
        optimizer: Optimizer,
        ranks: Ranks,
        events: EventLog,
        keep: int,
        ahead: bool = False,
        may_delete: Callable[[], bool] = lambda: True,
    ):
        self.root, self.stage, self.keep = root, stage, keep
        self._may_delete = may_delete
        self._model, self._optimizer, self._ranks, self._events = model, optimizer, ranks, events
        self._weights, self._slice = (Snapshot(pinned=ranks.device.type == "cuda") for _ in range(2))
        self._thread = ThreadPoolExecutor(1, "saver")
        self._flight: Flight | None = None
        self._published: Flight | None = None  # the latest published save
        self._deleting: dict[Path, Future[None]] = {}
        if ahead:
            self._snapshots(lambda snapshot, tensors: snapshot.reserve(tensors))

    @property
    def phase(self) -> Phase:
        """How far this rank is. The step's collective passes every rank's phase to `settle`."""
        return self._flight.phase if self._flight else Phase.IDLE

    def save(
        self, step: int, *, meta: Json, score: float | None, loop_state: Json, loader_state: Json, final: bool = False
    ) -> None:
        """Copy everything and begin to write the copy. The checkpoint with the lowest `score` is always kept.

        Waits for the previous save, if that is still in flight. The `final` checkpoint is also published as `model`. If this
        step's checkpoint is published already, its tensors are not written again.

        Raises StageError with Exit.STOPPED when the previous save has failed or the disk has too little room; then nothing of
        this save is left behind.
        """
        start = time.perf_counter()
        self._wait_for_previous_save(step)
        draft = self.root / f".step_{step:06d}.draft"
        documents = self._documents(step, meta, score, loop_state)
        if final and self._published and self._published.step == step:
            flight = replace(self._published, documents=documents, final=True)
            self._on_all_ranks(step, (lambda: self._publish(flight, self._linked(flight))) if self._ranks.is_main else None)
            return
        position = copy.deepcopy(loader_state)
        self._snapshots(lambda snapshot, tensors: snapshot.take(tensors))
        self._on_all_ranks(step, (lambda: self._prepare(draft)) if self._ranks.is_main else None)
        writing = self._thread.submit(self._write, draft, position)
        self._flight = Flight(step, draft, documents, final, writing, time.perf_counter() - start)

    def describe(self, step: int, *, meta: Json, score: float | None, loop_state: Json) -> None:
        """Replace metadata, score and loop state of the save in flight, if it is of `step`. Evaluations at that step call this.

        A save of an earlier step may still be in flight. It keeps what was true at its own step.
        """
        if self._flight and self._flight.step == step:
            self._flight.documents = self._documents(step, meta, score, loop_state)

    def settle(self, phases: Iterable[float]) -> None:
        """Publish the save in flight if the phases of all ranks say that it is written. Raises StageError as `save` does."""
        flight, found = self._flight, set(phases)
        if flight is None:
            return
        if Phase.FAILED in found:
            self._give_up(flight.step, flight.writing.exception() if flight.writing.done() else None)
        if found == {Phase.WRITTEN}:
            publish = (lambda: self._publish(flight, self._listed(flight.draft))) if self._ranks.is_main else None
            self._on_all_ranks(flight.step, publish)
            self._flight, self._published = None, flight

    def finish(self) -> None:
        """Wait for the save in flight and publish it. Raises StageError as `save` does."""
        if self._flight:
            wait([self._flight.writing])
        self.settle(row[0] for row in self._ranks.gather(self.phase))

    def close(self) -> None:
        """End the thread.

        After a failure elsewhere the ranks can no longer use collectives. A save that all ranks have written by now is still
        published.
        """
        flight = self._flight
        if flight and self._ranks.is_main:
            wait([flight.writing])
            lists = (_list_file(flight.draft, rank).exists() for rank in range(self._ranks.world_size))
            try:
                if flight.phase is Phase.WRITTEN and all(lists):
                    self._publish(flight, self._listed(flight.draft))
            except OSError as err:
                self._events.emit("log", level="error", message=f"checkpoint of step {flight.step}: {err}")
            shutil.rmtree(flight.draft, ignore_errors=True)
        self._flight = None
        self._thread.shutdown()

    # -- copying --

    def _wait_for_previous_save(self, step: int) -> None:
        flight, start = self._flight, time.perf_counter()
        busy = flight is not None and not flight.writing.done()
        self.finish()
        if flight and busy:
            waited = time.perf_counter() - start
            self._events.emit(
                "warning",
                code="save_waited",
                message=f"training waited {waited:.1f} s at step {step} for the checkpoint of step {flight.step} to be written",
            )

    def _documents(self, step: int, meta: Json, score: float | None, loop_state: Json) -> dict[str, Json]:
        described = {"format": FORMAT, "step": step, "stage": self.stage, "model_config": asdict(self._model.config)}
        state = {"format": FORMAT, "world_size": self._ranks.world_size, "optimizer_steps": self._optimizer.steps}
        return {META: {**described, "score": score, **meta}, TRAIN_STATE: {**state, "loop": copy.deepcopy(loop_state)}}

    def _snapshots(self, do: Callable[[Snapshot, Json], None]) -> None:
        do(self._slice, {**self._optimizer.state(), **random_state(self._ranks)})
        if self._ranks.is_main:
            do(self._weights, self._model.state_dict())

    def _prepare(self, draft: Path) -> None:
        """Create an empty draft folder, if the disk has room. No save is in flight, so all other drafts are leftovers."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._deleting = {leaving: future for leaving, future in self._deleting.items() if not future.done()}
        for leftover in self.root.glob(".step_*"):
            if leftover not in self._deleting:
                shutil.rmtree(leftover)
        self._make_room(self._weights.nbytes + self._slice.nbytes * self._ranks.world_size + RESERVE)
        draft.mkdir()

    def _make_room(self, needed: int) -> None:
        """Check that `needed` bytes are free. Raises OSError if not.

        If deleting the checkpoints that the new one will replace is enough, they are deleted now instead of afterwards. The
        latest and the best always stay.
        """
        free, replaced = self._free(), superseded(self.root, max(1, self.keep - 1))
        if free < needed:
            free = self._free_after_deletions()
        if self._may_delete() and free < needed <= free + sum(_size(d) for d in replaced):
            self._delete(replaced)
            free = self._free_after_deletions()
        if free < needed:
            text = f"{needed / 2**30:.2f} GiB are needed and only {free / 2**30:.2f} GiB are free"
            raise OSError(errno.ENOSPC, text)

    def _free(self) -> int:
        return shutil.disk_usage(self.root).free

    def _free_after_deletions(self) -> int:
        """Bytes free, once the deletions that have begun are done."""
        wait(self._deleting.values())
        return self._free()

    # -- in the thread --

    def _write(self, draft: Path, position: Json) -> float:
        start = time.perf_counter()
        loader = loader_file(draft, self._ranks.rank)
        write_json(loader, position)
        tensors = {optim_file(draft, self._ranks.rank): self._slice.tensors}
        if self._ranks.is_main:
            tensors[draft / MODEL] = self._weights.tensors
        # Computing a digest occupies a core. A GPU's host has one for each file; on a CPU it would be taken from training.
        with ThreadPoolExecutor(len(tensors) if self._ranks.device.type == "cuda" else 1) as pool:
            digests = dict(zip(tensors, pool.map(write_tensors, tensors, tensors.values()), strict=True))
        digests[loader] = sha256_file(loader)
        write_json(_list_file(draft, self._ranks.rank), [file_entry(draft, path, sha) for path, sha in digests.items()])
        return time.perf_counter() - start

    # -- publishing --

    def _publish(self, flight: Flight, files: list[Json]) -> None:
        """On rank 0: turn the draft into a checkpoint, emit its event, delete the checkpoints it replaces. Raises OSError."""
        start = time.perf_counter()
        target = self._target(flight.step)
        artifact = self._seal(flight, files)
        # A target is there from an earlier save of this step, or from an earlier try in the same folder. It must not be absent
        # even for a moment: a kill would lose it.
        if target.exists() and exchange(flight.draft, target):
            self._remove(flight.draft, target.name)
        else:
            if target.exists():
                self._remove(target, target.name)
            flight.draft.replace(target)
        sync(self.root)
        flight.stall_s += time.perf_counter() - start
        place = {"path": str(target.resolve()), "sha256": artifact.sha256}
        self._events.emit(
            "checkpoint",
            step=flight.step,
            **place,
            bytes=_size(target),
            final=flight.final,
            val_bpb=flight.documents[META].get("val_bpb"),
            stall_ms=round(1000 * flight.stall_s, 1),
            write_s=round(flight.writing.result(), 3),
        )
        if flight.final:
            self._events.emit("artifact", name="model", **place)
        if self._may_delete():
            self._delete(superseded(self.root, self.keep))

    def _target(self, step: int) -> Path:
        return self.root / f"step_{step:06d}"

    def _listed(self, draft: Path) -> list[Json]:
        """The manifest's entries of the files that the ranks have listed. Raises OSError unless exactly these are there."""
        lists = [_list_file(draft, rank) for rank in range(self._ranks.world_size)]
        files = [entry for path in lists for entry in json.loads(path.read_text(encoding="utf-8"))]
        for path in lists:
            path.unlink()
        listed = {entry["path"]: entry["bytes"] for entry in files}
        if listed != (found := {p.name: p.stat().st_size for p in draft.iterdir()}):
            raise OSError(errno.EIO, f"{draft} holds {found}, but the ranks wrote {listed}")
        return files

    def _linked(self, flight: Flight) -> list[Json]:
        """Make a draft of hard links to the published files of the same step. Returns their entries in the manifest."""
        target = self._target(flight.step)
        shutil.rmtree(flight.draft, ignore_errors=True)
        shutil.copytree(target, flight.draft, copy_function=os.link)
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        return [entry for entry in manifest["files"] if entry["path"] not in flight.documents]

    def _seal(self, flight: Flight, files: list[Json]) -> Artifact:
        """Write the documents and the manifest of all files into the draft."""
        draft = flight.draft
        for name, document in flight.documents.items():
            write_json(draft / name, document)
            files = [*files, file_entry(draft, draft / name, sha256_file(draft / name))]
        artifact = write_manifest(draft, sorted(files, key=lambda f: str(f["path"])), name="model", stage=self.stage)
        sync(draft)
        return Artifact(path=str(self._target(flight.step).resolve()), sha256=artifact.sha256)

    def _delete(self, directories: list[Path]) -> None:
        for directory in directories:
            self._events.emit("checkpoint_deleted", step=int(directory.name[5:]), path=str(directory.resolve()))
            self._remove(directory, directory.name)

    def _remove(self, directory: Path, name: str) -> None:
        """Rename the folder at once and let the thread free its blocks, which takes over a second for gigabytes."""
        leaving = directory.with_name(f".{name}.old")  # a kill must not leave half a checkpoint under its name
        wait([self._deleting[leaving]] if leaving in self._deleting else [])
        directory.replace(leaving)
        self._deleting[leaving] = self._thread.submit(shutil.rmtree, leaving)

    # -- agreeing --

    def _on_all_ranks(self, step: int, work: Callable[[], None] | None) -> None:
        """Do this rank's part. If it failed on any rank, give up on every rank: else the others would wait for ever."""
        error = None
        try:
            if work:
                work()
        except OSError as err:
            error = err
        if self._ranks.any(error is not None):
            self._give_up(step, error)

    def _give_up(self, step: int, error: BaseException | None) -> None:
        """Delete the draft and end the stage so that it can be resumed. Every rank calls this at the same point."""
        if self._flight:
            wait([self._flight.writing])
        self._flight = None
        self._ranks.barrier()  # nobody writes into the draft any more
        if self._ranks.is_main:
            shutil.rmtree(self.root / f".step_{step:06d}.draft", ignore_errors=True)
        cause = code_of(error) if error else None
        raise StageError(
            f"the checkpoint of step {step} could not be written to {self.root}: {error or 'another process failed'}",
            code=DISK_FULL if cause == DISK_FULL else READ_ONLY if cause == READ_ONLY else "checkpoint_not_written",
            hint="free some disk space or repair the disk, then resume from the previous checkpoint",
            exit_code=Exit.STOPPED,
        ) from error


def superseded(root: Path, keep: int) -> list[Path]:
    """The checkpoints to delete: neither among the latest `keep` nor the best. Of equally good ones the latest is the best."""
    directories = sorted(root.glob("step_*"))
    best = min(reversed(directories), key=_score, default=None)
    return [d for d in directories[:-keep] if d != best]


def _score(directory: Path) -> float:
    try:
        score = json.loads((directory / META).read_text(encoding="utf-8")).get("score")
    except (OSError, ValueError):
        return math.inf
    return score if score is not None and math.isfinite(score) else math.inf


def _size(directory: Path) -> int:
    return sum(p.stat().st_size for p in directory.iterdir())


def _list_file(draft: Path, rank: int) -> Path:
    return draft / f".rank{rank}.json"
