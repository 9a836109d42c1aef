"""Read checkpoints. `saver.py` writes them.

A checkpoint is a folder of safetensors and JSON files, which appears whole or not at all. `step_000123/` holds
- `model.safetensors`, `meta.json` and `train_state.json`;
- for each rank, `optim_rank{r}.safetensors` (its slice of the optimizer and its random state) and `loader_rank{r}.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nanochat.contract.contract import StageError
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig
from nanochat.optim import Optimizer

FORMAT = 1
MODEL, META, TRAIN_STATE = "model.safetensors", "meta.json", "train_state.json"

Json = dict[str, Any]


def load_model(directory: Path, device: torch.device | str) -> tuple[GPT, Json]:
    """Load the model saved in `directory` onto `device`. Returns it with its `meta.json`.

    Raises StageError: "checkpoint_corrupt" when a file is missing or unreadable, "config_mismatch" when the names and shapes
    of the tensors are not exactly those of the architecture in `meta.json`.
    """
    config, meta = load_config(directory)
    tensors = _read_tensors(directory / MODEL)
    with torch.device(device):
        model = GPT(config)
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as err:
        raise StageError(
            f"{directory / MODEL} does not match the architecture in {META}: {err}",
            code="config_mismatch",
            hint="rerun the stage that made this model",
        ) from err
    return model, meta


def load_config(directory: Path) -> tuple[GPTConfig, Json]:
    """Read only the shape of the model saved in `directory`. Returns it with `meta.json`. Raises StageError as `load_model`."""
    meta = _read_json(directory / META)
    try:
        return GPTConfig(**meta["model_config"]), meta
    except (KeyError, TypeError) as err:
        raise StageError(
            f"{directory / META} does not describe a model of this program's architecture: {err}",
            code="config_mismatch",
            hint="use a checkpoint that was made by this version of the program",
        ) from err


class Resume:
    """A checkpoint of an earlier attempt, from which training resumes."""

    def __init__(self, directory: Path):
        """Raises StageError "checkpoint_corrupt" when the folder has no readable training state."""
        self.directory = directory
        state = _read_json(directory / TRAIN_STATE)
        try:
            self.world_size: int = state["world_size"]
            self.loop: Json = state["loop"]
            self._optimizer_steps: int = state["optimizer_steps"]
        except KeyError as err:
            raise _corrupt(directory / TRAIN_STATE, err) from err

    def loader_states(self) -> list[Json]:
        """The position of every rank's loader, in the order of the ranks that saved."""
        return [_read_json(loader_file(self.directory, rank)) for rank in range(self.world_size)]

    def restore(self, optimizer: Optimizer, ranks: Ranks) -> None:
        """Restore the optimizer and this rank's random state.

        If the number of ranks has changed, the optimizer's slices are cut anew and the random state is not restored.
        Raises StageError "checkpoint_corrupt".
        """
        same = ranks.world_size == self.world_size
        writers = [ranks.rank] if same else range(self.world_size)
        shards = [_read_tensors(optim_file(self.directory, rank)) for rank in writers]
        try:
            optimizer.load(shards, self._optimizer_steps)
        except (KeyError, RuntimeError) as err:
            raise _corrupt(self.directory, err) from err
        if same:
            _set_random_state(shards[0], ranks)


# -- one rank's part --


def random_state(ranks: Ranks) -> dict[str, Tensor]:
    """The state of this rank's random generators, by name."""
    state = {"random.cpu": torch.get_rng_state()}
    if ranks.device.type == "cuda":
        state["random.cuda"] = torch.cuda.get_rng_state(ranks.device)
    return state


def _set_random_state(tensors: dict[str, Tensor], ranks: Ranks) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if ranks.device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], ranks.device)


def optim_file(directory: Path, rank: int) -> Path:
    return directory / f"optim_rank{rank}.safetensors"


def loader_file(directory: Path, rank: int) -> Path:
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
