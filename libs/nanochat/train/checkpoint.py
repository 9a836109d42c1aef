"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all.

`step_000123/` holds `model.safetensors`, `meta.json`, `train_state.json`, and for each rank `optim_rank{r}.safetensors` (its
slice of the optimizer, its random state) and `loader_rank{r}.json`. It is written under another name, synced, sealed with a
manifest of every file's digest and then renamed, so a kill at any moment leaves the previous checkpoint and no half.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from nanochat.contract import Artifact, Exit, StageError, seal, write_json
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig
from nanochat.optim import Optimizer

FORMAT = 1
MODEL, META, TRAIN_STATE = "model.safetensors", "meta.json", "train_state.json"
RESERVE = 64 << 20  # bytes left free beside a new checkpoint: events and logs must go on

Json = dict[str, Any]


def save(
    root: Path,
    step: int,
    *,
    stage: str,
    model: GPT,
    optimizer: Optimizer,
    ranks: Ranks,
    meta: Json,
    loop_state: Json,
    loader_state: Json,
) -> Artifact:
    """Write `root/step_<step>`; every rank must call it. Raises StageError with Exit.STOPPED when the disk does not take it,
    in which case nothing of it stays behind."""
    target, draft = root / f"step_{step:06d}", root / f".step_{step:06d}.draft"

    def prepare() -> None:
        root.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(draft, ignore_errors=True)
        _check_space(root, model, optimizer, ranks)
        draft.mkdir()

    def write_shared() -> None:
        _write_tensors(draft / MODEL, {name: value.detach() for name, value in model.state_dict().items()})
        write_json(draft / META, {"format": FORMAT, "step": step, "stage": stage, "model_config": asdict(model.config), **meta})
        state = {"format": FORMAT, "world_size": ranks.world_size, "optimizer_steps": optimizer.steps, "loop": loop_state}
        write_json(draft / TRAIN_STATE, state)

    def write_own() -> None:
        if ranks.is_main:
            write_shared()
        _write_tensors(_optim_file(draft, ranks.rank), {**optimizer.state(), **_random_state(ranks)})
        write_json(_loader_file(draft, ranks.rank), loader_state)

    def publish() -> Artifact:
        sealed = seal(draft, name="model", stage=stage)
        shutil.rmtree(target, ignore_errors=True)  # of an earlier try in the same folder
        draft.replace(target)
        _sync(root)
        return Artifact(path=str(target.resolve()), sha256=sealed.sha256)

    _together(ranks, step, draft, prepare if ranks.is_main else None)
    _together(ranks, step, draft, write_own)
    artifact = _together(ranks, step, draft, publish if ranks.is_main else None)
    return artifact or Artifact(path=str(target.resolve()), sha256="")


def retain(root: Path, keep: int) -> None:
    """Delete all but the `keep` furthest checkpoints of this attempt."""
    for directory in sorted(root.glob("step_*"))[:-keep]:
        leaving = directory.with_name(f".{directory.name}.old")  # so that no kill leaves half of it under its name
        directory.replace(leaving)
        shutil.rmtree(leaving)


def load_model(directory: Path, device: torch.device | str) -> tuple[GPT, Json]:
    """The model saved in `directory`, on `device`, and its `meta.json`. Every tensor must be there, of the right shape.

    Raises StageError: "checkpoint_corrupt" when a file is missing or unreadable, "config_mismatch" when the tensors are not
    those of the architecture in `meta.json`.
    """
    config, meta = load_config(directory)
    tensors = _read_tensors(directory / MODEL)
    with torch.device(device):
        model = GPT(config)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as err:
        raise StageError(
            f"{directory / MODEL} holds another architecture than {META} says: {err}",
            code="config_mismatch",
            hint="rerun the stage that made it",
        ) from err
    return model, meta


def load_config(directory: Path) -> tuple[GPTConfig, Json]:
    """The shape of the model saved in `directory`, and the `meta.json` that says so. Raises StageError as `load_model` does."""
    meta = _read_json(directory / META)
    try:
        return GPTConfig(**meta["model_config"]), meta
    except (KeyError, TypeError) as err:
        raise StageError(
            f"{directory / META} does not describe this architecture: {err}",
            code="config_mismatch",
            hint="use a checkpoint of this program's version",
        ) from err


class Resume:
    """A checkpoint of an earlier attempt, to go on from."""

    def __init__(self, directory: Path):
        """Raises StageError "checkpoint_corrupt" when it has no training state."""
        self.directory = directory
        state = _read_json(directory / TRAIN_STATE)
        try:
            self.world_size: int = state["world_size"]
            self.loop: Json = state["loop"]
            self._optimizer_steps: int = state["optimizer_steps"]
        except KeyError as err:
            raise _corrupt(directory / TRAIN_STATE, err) from err

    def loader_states(self) -> list[Json]:
        """One position for each rank that saved."""
        return [_read_json(_loader_file(self.directory, rank)) for rank in range(self.world_size)]

    def restore(self, optimizer: Optimizer, ranks: Ranks) -> None:
        """Optimizer and random state. At another number of ranks the optimizer's slices are cut anew."""
        same = ranks.world_size == self.world_size
        writers = [ranks.rank] if same else range(self.world_size)
        shards = [_read_tensors(_optim_file(self.directory, rank)) for rank in writers]
        try:
            optimizer.load(shards, self._optimizer_steps)
        except (KeyError, RuntimeError) as err:
            raise _corrupt(self.directory, err) from err
        if same:
            _set_random_state(shards[0], ranks)


# -- one rank's part --


def _together(ranks: Ranks, step: int, draft: Path, work: Callable[[], Any] | None) -> Any:
    """Do this rank's part, then learn whether every rank's part went well. Ranks agree, so that none waits for ever."""
    result, error = None, None
    try:
        result = work() if work else None
    except (OSError, SafetensorError) as err:
        error = err
    if ranks.any(error is not None):
        shutil.rmtree(draft, ignore_errors=True)
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        raise StageError(
            f"the checkpoint of step {step} could not be written to {draft.parent}: {error or 'another process failed'}",
            code="disk_full" if full else "checkpoint_not_written",
            hint="make room or repair the disk, then resume from the checkpoint before",
            exit_code=Exit.STOPPED,
        ) from error
    return result


def _check_space(root: Path, model: GPT, optimizer: Optimizer, ranks: Ranks) -> None:
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    slices = sum(v.numel() * v.element_size() for v in optimizer.state().values()) * ranks.world_size
    free = shutil.disk_usage(root).free
    if free < weights + slices + RESERVE:
        text = f"{(weights + slices + RESERVE) / 2**30:.2f} GiB are needed and {free / 2**30:.2f} GiB are free"
        raise OSError(errno.ENOSPC, text)


def _write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    # Copies: a parameter is a view of its bucket, and safetensors wants storage of its own.
    save_file({name: value.to("cpu", copy=True).contiguous() for name, value in tensors.items()}, path)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _random_state(ranks: Ranks) -> dict[str, Tensor]:
    state = {"random.cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        state["random.cuda"] = torch.cuda.get_rng_state(ranks.device)
    return state


def _set_random_state(tensors: dict[str, Tensor], ranks: Ranks) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if ranks.device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], ranks.device)


def _optim_file(directory: Path, rank: int) -> Path:
    return directory / f"optim_rank{rank}.safetensors"


def _loader_file(directory: Path, rank: int) -> Path:
    return directory / f"loader_rank{rank}.json"


# -- reading --


def _read_json(path: Path) -> Json:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise _corrupt(path, err) from err
    if not isinstance(value, dict):
        raise _corrupt(path, "not an object")
    return value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as err:
        raise _corrupt(path, err) from err


def _corrupt(path: Path, why: object) -> StageError:
    return StageError(
        f"cannot read the checkpoint file {path}: {why}", code="checkpoint_corrupt", hint="use another checkpoint"
    )
