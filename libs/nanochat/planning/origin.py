"""Find the model that a recipe starts from, and compare its shape with the recipe's, before any work. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nanochat.config.from_spec import First, FromSpec
from nanochat.config.recipe import Recipe
from nanochat.config.shape import HF_NAMES, GPTConfig
from nanochat.contract.contract import MANIFEST, attempts
from nanochat.contract.paths import path_of
from nanochat.planning import graph

META, PLAIN, HF_CONFIG, TOKENIZER = "meta.json", "nanochat.json", "config.json", "tokenizer.json"
PADDING = 128  # fewer rows than this after the last token are padding, which an import cuts off
# A part of the shape -> the field of the recipe that decides it.
FIELDS = {"n_layer": "model.depth", "sequence_len": "model.seq_len", "vocab_size": "tokenizer.vocab_size"}


class NoOrigin(ValueError):
    """There is no usable model at this place. The message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the model and its tokenizer are. `foreign`: the folder is another program's and must be imported."""

    model: Path
    tokenizer: Path
    shape: dict[str, Any]  # what its description says of the fields of GPTConfig
    tokenizer_sha256: str | None = None  # of the tokenizer that the model was trained with, if that is known
    foreign: bool = False


def sources(first: First) -> list[str]:
    """The stages of another run whose model `first` can start from, the best first."""
    before = graph.TRAINED[: graph.TRAINED.index(first)] or graph.TRAINED[:1]
    return list(reversed(before))


def find(start: FromSpec) -> Origin:
    """Raises NoOrigin."""
    place = path_of(start.model).resolve()
    if not place.is_dir():
        raise NoOrigin(f"no folder {place}; give the folder of a model")
    if (place / META).is_file():
        return _ours(place, start.tokenizer)
    if (place / "model" / META).is_file():
        return _ours(place / "model", start.tokenizer)
    if (place / PLAIN).is_file() or (place / HF_CONFIG).is_file():
        return _foreign(place)
    for stage in sources(start.first):
        for attempt in attempts(place / stage, MANIFEST).values():
            model = _read(attempt / MANIFEST)["outputs"]["model"]["path"]
            return _ours(Path(model), start.tokenizer or _tokenizer_of(place))
    raise NoOrigin(
        f"folder {place} holds no model: no {META}, {PLAIN} or {HF_CONFIG}, and no finished {' or '.join(sources(start.first))} "
        "of a run"
    )


def problems(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What is wrong with the section `from` of a recipe that has one."""
    start = recipe.from_
    if start is None:
        return
    if start.first not in {stage.name for stage in graph.stages(recipe)}:
        yield "from.first", f"the recipe has no stage {start.first}; turn it on, or start with another one"
    try:
        origin = find(start)
    except NoOrigin as err:
        yield "from.model", str(err)
        return
    wanted = asdict(GPTConfig.of(recipe.model, recipe.tokenizer.vocab_size))
    padded = origin.foreign and 0 < origin.shape.get("vocab_size", 0) - wanted["vocab_size"] < PADDING
    unlike = {
        key: value for key, value in origin.shape.items() if wanted[key] != value and not (key == "vocab_size" and padded)
    }
    if unlike:
        found = ", ".join(f"{key} {value} (the recipe's: {wanted[key]})" for key, value in unlike.items())
        change = [f"{FIELDS[key]} = {value}" for key, value in unlike.items() if key in FIELDS]
        what = f"set {', '.join(change)}" if change else "change the section `model`"
        yield "from.model", f"{origin.model} has another shape than the recipe: {found}; {what}"


def _ours(model: Path, tokenizer: str | Path | None) -> Origin:
    if not (model / MANIFEST).is_file():
        raise NoOrigin(f"{model} has no {MANIFEST}: it was not written to its end; give a checkpoint that is complete")
    meta = _read(model / META)
    given = path_of(tokenizer).resolve() if tokenizer else model.parent / "tokenizer"
    if not (given / MANIFEST).is_file() or not (given / TOKENIZER).is_file():
        raise NoOrigin(f"{given} is no tokenizer of this program; give from.tokenizer, the folder of the tokenizer of {model}")
    try:
        shape = asdict(GPTConfig(**meta["model_config"]))
    except (KeyError, TypeError) as err:
        raise NoOrigin(f"{model / META} does not describe a model of this program: {err}") from err
    return Origin(model, given, shape, meta.get("tokenizer_sha256"))


def _foreign(folder: Path) -> Origin:
    if not (folder / TOKENIZER).is_file():
        raise NoOrigin(f"{folder} has no {TOKENIZER}; save the tokenizer into the folder too")
    if (folder / PLAIN).is_file():
        return Origin(folder, folder, dict(_read(folder / PLAIN).get("model_config", {})), foreign=True)
    described = _read(folder / HF_CONFIG)
    shape = {ours: described[theirs] for ours, theirs in HF_NAMES.items() if theirs in described}
    return Origin(folder, folder, shape, foreign=True)


def _tokenizer_of(run: Path) -> Path | None:
    """The tokenizer of a local run: of the newest attempt that made one, or of the model that the run itself started from."""
    for stage in ("start", "tok_train"):
        for attempt in attempts(run / stage, MANIFEST).values():
            return Path(_read(attempt / MANIFEST)["outputs"]["tokenizer"]["path"])
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise NoOrigin(f"{path} cannot be read: {err}") from err
    if not isinstance(value, dict):
        raise NoOrigin(f"{path} is not a JSON object")
    return value
