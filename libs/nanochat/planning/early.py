"""When the runs of a sweep are compared, and which of them are stopped early. Imports no torch.

The rule is asynchronous successive halving in its stopping form (ASHA: Li et al. 2020, "A System for Massively Parallel
Hyperparameter Tuning", MLSys). A run is compared at rungs: at `after`, then each time at 1 / `keep` of the point before. At a rung
it goes on if its value is among the best `keep` of all values that runs of the sweep have had there until then. No run waits for
another one, so the first at a rung always goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from nanochat.config.recipe import Recipe
from nanochat.planning import graph
from nanochat.planning.metrics import BY_KEY
from nanochat.planning.plan import Plan

MetricKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_./@-]{1,80}$")]
StageName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
Problem = tuple[str, str]

LEAST = 0.001  # of a stage, at the first rung; the number of rungs grows with its inverse
METRICS = tuple(key for key, metric in BY_KEY.items() if metric.better is not None)


class StopEarly(BaseModel):
    """The rule by which runs are stopped early: asynchronous successive halving."""

    model_config = ConfigDict(extra="forbid")

    metric: MetricKey = Field(
        description="Metric to compare the runs by; the catalog says which direction is better.", examples=["val_bpb"]
    )
    stage: StageName | None = Field(
        default=None, description="Training stage that reports it; null means the first that does.", examples=["base_train"]
    )
    after: float = Field(
        strict=True,
        gt=0,
        le=1e15,
        allow_inf_nan=False,
        description="First point of the stage at which runs are compared, in `unit`.",
    )
    unit: Literal["fraction", "steps", "tokens"] = Field(
        default="fraction", description="Whether `after` is a fraction of the stage's steps, a number of steps or of tokens."
    )
    keep: float = Field(
        default=0.5,
        strict=True,
        ge=0.01,
        le=0.9,
        description="Fraction of the runs that goes on at each comparison. The next one follows at 1 / `keep` of the point.",
    )

    @model_validator(mode="after")
    def _a_point_within(self) -> StopEarly:
        if self.unit == "fraction" and self.after >= 1:
            raise ValueError("`after` is a fraction of the stage, so it must be less than 1; or give a `unit`")
        if self.after < (least := LEAST if self.unit == "fraction" else 1):
            raise ValueError(f"`after` must be at least {least:g} {self.unit}")
        return self


def where(metric: str, stage: str | None) -> tuple[str, bool]:
    """The stage that reports a metric, and whether less is better. Raises ValueError with what to do."""
    known = BY_KEY.get(metric)
    if known is None or known.better is None:
        raise ValueError(f"{metric!r} is no metric with a better direction; those are {', '.join(METRICS)}")
    if stage is not None and stage not in known.stages:
        raise ValueError(f"{stage} does not report {metric}; {', '.join(known.stages)} do")
    return stage or known.stages[0], known.better == "lower"


def problems(rule: StopEarly, recipe: Recipe, figures: Plan) -> Iterator[Problem]:
    """Why the rule could never stop a run of this recipe."""
    try:
        name, _ = where(rule.metric, rule.stage)
    except ValueError as err:
        yield "stop_early.metric", str(err)
        return
    stage = next((s for s in graph.stages(recipe) if s.name == name), None)
    if stage is None or stage.trains is None:
        yield "stop_early.stage", f"the recipe has no stage {name}"
        return
    planned = next(s for s in figures.stages if s.stage == name)
    if planned.steps is None:
        yield (
            "stop_early.stage",
            f"the length of {name} is not known before its data are there; set {stage.trains}.num_iterations",
        )
        return
    if rung_step(rule, 0, planned.steps, planned.tokens) is None:
        yield (
            "stop_early.after",
            f"{rule.after:g} {rule.unit} is not before the end of {name}, which has {planned.steps:,} steps",
        )
    every = getattr(getattr(recipe, stage.trains), "eval_every", 1) if BY_KEY[rule.metric].plot == "validation" else 1
    if every < 1 or every >= planned.steps:
        yield (
            "stop_early.metric",
            f"{rule.metric} is measured at the end only: {stage.trains}.eval_every is {every}, of {planned.steps} steps",
        )


def rung_step(rule: StopEarly, no: int, steps: int, tokens: int | None) -> int | None:
    """The first step that counts for rung `no` of a stage with so many steps; None if the stage has ended by then."""
    if rule.unit == "tokens" and not tokens:
        return None
    scale = {"fraction": float(steps), "steps": 1.0, "tokens": steps / (tokens or 1)}[rule.unit]
    step = 0
    for passed in range(no + 1):  # no two rungs at one step, however short the stage is
        step = max(step + 1, math.ceil(rule.after / rule.keep**passed * scale - 1e-9))
    return step if step < steps else None


def goes_on(value: float, others: Sequence[float], keep: float, *, lower: bool) -> bool:
    """Whether a run with this value goes on, given all values at its rung, its own included. Equal values share one fate.

    A value that is not finite is worse than every finite one.
    """
    mine = _rank(value, lower)
    return sum(_rank(other, lower) < mine for other in others) < math.ceil(keep * len(others) - 1e-9)


def _rank(value: float, lower: bool) -> float:
    if not math.isfinite(value):
        return math.inf
    return value if lower else -value
