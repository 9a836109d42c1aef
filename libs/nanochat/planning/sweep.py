"""Sweeps: which runs one sweep makes of one recipe. A run is the recipe, the sweep's overrides and the run's own. Imports no torch."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, model_validator

from nanochat.config.recipe import Recipe, RecipeError, resolve

MAX_RUNS = 256
MAX_CHARS = 32 << 20  # of all recipes together: the ledger keeps one for each run
DRAWS = 50  # for each sample, before a random sweep gives up finding one that it has not drawn yet
DIGITS = 6  # significant ones of a number that is drawn
ALL = "all"

# What a depth ladder sets for each depth: the size, and no fixed length, so that the recipe's own ratio decides.
LADDER = ("model.depth", "base.num_iterations", "base.target_flops")
# Sections with the switches of pretraining, and their fields that say how much or how often, not how.
SECTIONS = ("model", "tokenizer", "base")
NO_SWITCHES = frozenset(
    {
        "model.depth",
        "model.seq_len",
        "tokenizer.max_chars",
        *(
            f"base.{name}"
            for name in (
                *("num_iterations", "target_flops", "device_batch_size", "eval_every", "eval_tokens", "core_every"),
                *("core_max_per_task", "sample_every", "save_every", "keep_checkpoints", "deterministic", "compile"),
            )
        ),
    }
)

FieldPath = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$", max_length=200)]
Values = Annotated[list[JsonValue], Field(min_length=1, max_length=MAX_RUNS)]
Bound = Annotated[float, Field(ge=-1e100, le=1e100, allow_inf_nan=False, strict=True)]


class Axis(BaseModel):
    """What a random sweep draws a field from: some values, or the numbers from `min` to `max`."""

    model_config = ConfigDict(extra="forbid")

    values: Values | None = Field(default=None, description="Values, each as likely as the others. Excludes all else.")
    min: Bound | None = Field(default=None, description="Smallest number.")
    max: Bound | None = Field(default=None, description="Largest number.")
    log: bool = Field(default=False, strict=True, description="Draw evenly on a logarithmic scale.")
    integer: bool = Field(default=False, strict=True, description="Draw whole numbers only.")

    @model_validator(mode="after")
    def _one_meaning(self) -> Axis:
        if self.values is not None:
            if self.min is not None or self.max is not None or self.log or self.integer:
                raise ValueError("give `values` alone, or `min` and `max`")
            return self
        if self.min is None or self.max is None:
            raise ValueError("give `values`, or both `min` and `max`")
        if self.min >= self.max:
            raise ValueError("`min` must be less than `max`")
        if self.log and self.min <= 0:
            raise ValueError("a logarithmic scale begins above 0; give a greater `min`")
        if self.integer and not (self.min.is_integer() and self.max.is_integer()):
            raise ValueError("`min` and `max` must be whole numbers if `integer` is true")
        return self

    def draw(self, rng: random.Random) -> JsonValue:
        u = rng.random()
        if self.values is not None:
            return self.values[int(u * len(self.values))]
        assert self.min is not None
        assert self.max is not None
        top = self.max + 1 if self.integer else self.max
        found = self.min * math.exp(u * math.log(top / self.min)) if self.log else self.min + u * (top - self.min)
        if self.integer:
            return int(min(math.floor(found), self.max))
        return min(max(float(f"{found:.{DIGITS}g}"), self.min), self.max)


class RandomSpace(BaseModel):
    """Samples that are drawn independently. The same seed draws the same samples."""

    model_config = ConfigDict(extra="forbid")

    axes: dict[FieldPath, Axis] = Field(min_length=1, max_length=32, description="What to draw, by dotted path of the field.")
    samples: int = Field(strict=True, ge=1, le=MAX_RUNS, description="Number of runs.")
    seed: int = Field(default=0, strict=True, ge=0, lt=2**32, description="Seed of the draws.")


class Space(BaseModel):
    """The runs of a sweep. Exactly one of the four is given."""

    grid: dict[FieldPath, Values] | None = Field(
        default=None,
        max_length=32,
        description="Every combination of these values, by dotted path of the field.",
        examples=[{"model.depth": [4, 8]}],
    )
    random: RandomSpace | None = Field(default=None, description="Random samples.")
    depths: list[Annotated[int, Field(strict=True, ge=1, le=1024)]] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_RUNS,
        description="A ladder: one run for each value of `model.depth`, each trained for as long as `base.param_data_ratio` says.",
    )
    ablate: list[FieldPath] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_RUNS - 1,
        description="The recipe itself, and for each of these switches one run with the switch flipped: back to its default, or if "
        "it has its default and is true or false, to the other one. The single word `all` means every switch of the model, the "
        "tokenizer and pretraining in which the recipe differs from the defaults.",
        examples=[["all"], ["model.smear", "base.packing"]],
    )


@dataclass(frozen=True, slots=True)
class Child:
    """One run of a sweep: a label for people, what it overrides, and the recipe that results."""

    label: str
    overrides: dict[str, Any]
    recipe: Recipe


def children(space: Space, recipe: str | dict[str, Any], overrides: Mapping[str, Any]) -> list[Child]:
    """The runs of a sweep, in order. Raises RecipeError, which names every wrong field, and too many or equal runs."""
    given = [name for name in Space.model_fields if getattr(space, name) is not None]
    if len(given) != 1:
        raise RecipeError(
            [("sweep", f"give exactly one of {', '.join(Space.model_fields)}; given: {', '.join(given) or 'none'}")]
        )
    kind = given[0]
    if kind == "ablate":
        own = list(_ablation(space, recipe, overrides))
    else:
        own = list(_DRAWN[kind](space))
        _check_apart(kind, list(dict.fromkeys(path for one in own for path in one)), overrides)
    shown = _short({path for one in own for path in one})
    made: list[Child] = []
    problems: dict[tuple[str, str], list[str]] = {}
    for one in own:
        label = ", ".join(
            f"{shown[path]}={json.dumps(value)}" for path, value in one.items() if value is not None or kind != "depths"
        )
        try:
            made.append(Child(label or "base", one, resolve(recipe, {**overrides, **one})))
        except RecipeError as err:
            for problem in err.problems:
                problems.setdefault(problem, []).append(label or "base")
    if problems:
        raise RecipeError([(field, in_runs(text, labels, len(own))) for (field, text), labels in problems.items()])
    _check_different(kind, made)
    return made


# -- kinds --


def _grid(space: Space) -> Iterator[dict[str, Any]]:
    assert space.grid is not None
    if not space.grid:
        raise RecipeError([("grid", "is empty; give at least one field with its values")])
    runs = math.prod(len(values) for values in space.grid.values())
    if runs > MAX_RUNS:
        raise RecipeError(
            [("grid", f"makes {runs:,} runs; a sweep has at most {MAX_RUNS}. Give fewer values, or use `random`")]
        )
    for path, values in space.grid.items():
        if len({_canonical(value) for value in values}) < len(values):
            raise RecipeError([(f"grid.{path}", "has a value twice; name each once")])
    for chosen in product(*space.grid.values()):
        yield dict(zip(space.grid, chosen, strict=True))


def _random(space: Space) -> Iterator[dict[str, Any]]:
    assert space.random is not None
    rng, seen = random.Random(space.random.seed), set()
    for _ in range(space.random.samples * DRAWS):
        one = {path: axis.draw(rng) for path, axis in space.random.axes.items()}
        if (text := _canonical(one)) not in seen:
            seen.add(text)
            yield one
        if len(seen) == space.random.samples:
            return
    raise RecipeError([("random.samples", f"only {len(seen)} different samples were found; ask for fewer, or use `grid`")])


def _ladder(space: Space) -> Iterator[dict[str, Any]]:
    assert space.depths is not None
    if len(set(space.depths)) < len(space.depths):
        raise RecipeError([("depths", "has a depth twice; name each once")])
    for depth in space.depths:
        yield dict.fromkeys(LADDER) | {"model.depth": depth}


_DRAWN = {"grid": _grid, "random": _random, "depths": _ladder}


def _ablation(space: Space, recipe: str | dict[str, Any], overrides: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    assert space.ablate is not None
    now = _leaves(resolve(recipe, dict(overrides)).model_dump(mode="json"))
    plain = _leaves(Recipe().model_dump(mode="json"))
    if space.ablate == [ALL]:
        own = _leaves(resolve(recipe).model_dump(mode="json"))
        switches = [path for path in own if _is_switch(path, overrides) and own[path] != plain.get(path) != now[path]]
        if not switches:
            raise RecipeError(
                [("ablate", "the recipe has no switch that differs from the defaults; name the switches to flip")]
            )
    else:
        switches = space.ablate
        problems = [*_misnamed(switches, now, plain)]
        problems += [
            ("ablate", f"{path} is set by `overrides` as well; leave it out there") for path in switches if path in overrides
        ]
        if problems:
            raise RecipeError(problems)
    if len(switches) >= MAX_RUNS:
        raise RecipeError([("ablate", f"has {len(switches)} switches; a sweep has at most {MAX_RUNS} runs. Name fewer")])
    yield {}
    for path in switches:
        yield {path: plain[path] if now[path] != plain[path] else not now[path]}


def _is_switch(path: str, overrides: Mapping[str, Any]) -> bool:
    chosen = any(path == given or path.startswith(f"{given}.") for given in overrides)
    return path.partition(".")[0] in SECTIONS and path not in NO_SWITCHES and not chosen


def _misnamed(switches: Sequence[str], now: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for place, path in enumerate(switches):
        if path in switches[:place]:
            yield "ablate", f"{path} is named twice"
        elif path == ALL:
            yield "ablate", "`all` stands alone; leave the other names out"
        elif path not in now or path not in plain:
            yield "ablate", f"{path} is no field of the recipe; check the spelling"
        elif now[path] == plain[path] and not isinstance(now[path], bool):
            yield "ablate", f"{path} has its default already, and is not true or false; use `grid` to try other values"


# -- checks --


def _check_apart(kind: str, paths: Sequence[str], overrides: Mapping[str, Any]) -> None:
    """No two of a run's overrides may set the same field: the one that comes last would win without a word."""
    problems = []
    for path in paths:
        for other in (*paths, *overrides):
            same = path == other and other in overrides
            if same or path.startswith(f"{other}.") or (other in overrides and other.startswith(f"{path}.")):
                where = "`overrides`" if other in overrides else f"`{other}`"
                problems.append((kind, f"{path} is set by {where} as well; leave it out there"))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _check_different(kind: str, made: Sequence[Child]) -> None:
    seen: dict[str, str] = {}
    problems = []
    chars = 0
    for child in made:
        text = _canonical(child.recipe.model_dump(mode="json", exclude={"name", "description"}))
        if text in seen:
            problems.append((kind, f"the runs {seen[text]} and {child.label} are the same; leave one out"))
        seen.setdefault(text, child.label)
        chars += len(text)
    if chars > MAX_CHARS:
        problems.append(
            (kind, f"its recipes have {chars >> 20} MiB together, at most {MAX_CHARS >> 20} are taken; make fewer runs")
        )
    if problems:
        raise RecipeError(problems)


def in_runs(text: str, labels: Sequence[str], runs: int) -> str:
    """The text, with the runs that it is about unless it is about all of them."""
    if len(labels) == runs:
        return text
    more = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
    return f"{text} (in the run {labels[0]}{more})"


# -- paths and values --


def _leaves(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{prefix}{key}"
        found |= _leaves(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def _short(paths: set[str]) -> dict[str, str]:
    """The last parts of each path, as many as tell it from the others."""
    shown = {}
    for path in paths:
        parts = path.split(".")
        count = 1
        while count < len(parts) and any(o != path and o.split(".")[-count:] == parts[-count:] for o in paths):
            count += 1
        shown[path] = ".".join(parts[-count:])
    return shown


def _canonical(value: Any) -> str:
    """Equal for equal values: 1 and 1.0 are one number, true is none."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
