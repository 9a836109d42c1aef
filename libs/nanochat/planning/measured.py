"""Figures of finished stages as plans use them, and which stages are alike enough for that. Imports no torch.

A stage that trains is measured by the FLOPs per second that it reached, every other one by its hours. Both carry over to another
depth by the model's FLOPs per token.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nanochat.config.recipe import Recipe
from nanochat.config.shape import GPTConfig, flops_per_token
from nanochat.planning.graph import StageDef

# How long fetching takes depends on the network and on what is in the cache; the report takes seconds.
UNMEASURED = frozenset({"data", "report"})
# Sections whose training speed is known in tokens per second. Reinforcement learning samples, and is measured by its hours.
BY_SPEED = frozenset({"base", "mid", "sft"})
# Fields that do not change how fast a training step of a given depth is. Every other field is taken to do so.
NEUTRAL = frozenset(
    {
        *("depth", "init", "qk_scale", "rope_base"),
        *("num_iterations", "num_epochs", "target_flops", "param_data_ratio", "horizon_params"),
        *("eval_every", "eval_tokens", "eval_batches", "core_every", "core_max_per_task", "sample_every"),
        *("metrics_every", "metrics_max_problems", "save_every", "keep_checkpoints", "val", "val_packing"),
        *("warmup_ratio", "warmup_steps", "warmdown_ratio", "final_lr_frac", "init_lr_frac", "scale_lr", "momentum"),
        *("momentum_ramp_steps", "final_momentum", "scale_weight_decay", "weight_decay_schedule", "shuffle"),
        *("lr", "betas", "weight_decay", "embedding_lr", "unembedding_lr", "matrix_lr", "matrix_weight_decay"),
        *("embedding_betas", "unembedding_betas", "embedding_weight_decay", "unembedding_weight_decay"),
    }
)


class Measured(BaseModel):
    """What finished runs say about a stage. One of `flops_per_s` and `hours` is set."""

    model_config = ConfigDict(frozen=True)

    stage: str = Field(description="Name of the stage.")
    runs: int = Field(description="Finished runs that the figure is the median of.")
    since: datetime.date = Field(description="When the oldest of them finished, in UTC.")
    depth: int | None = Field(
        default=None,
        description="Depth at which they ran, if it is another one than the recipe's; the figure is scaled by FLOPs.",
    )
    flops_per_s: float | None = Field(default=None, description="FLOPs per second of all processes together, while training.")
    hours: float | None = Field(default=None, description="Hours from claim to end.")

    @property
    def source(self) -> str:
        scaled = "" if self.depth is None else f", at depth {self.depth}, scaled by FLOPs"
        return f"measured here, {self.runs} runs, since {self.since}{scaled}"


def by_speed(stage: StageDef) -> bool:
    """Whether the stage is measured by its speed and not by its hours."""
    return stage.trains in BY_SPEED


def uses_model(stage: StageDef) -> bool:
    return stage.queue == "gpu"


def work(recipe: Recipe) -> int:
    """FLOPs per token of the recipe's model, by which figures carry over to other depths."""
    return flops_per_token(GPTConfig.of(recipe.model, recipe.tokenizer.vocab_size))


def likeness(recipe: Recipe, stage: StageDef) -> str | None:
    """A digest that is equal for stages whose figures are comparable, whatever their depth. None: such a stage is not measured."""
    if stage.kind in UNMEASURED:
        return None
    sections: dict[str, Any] = {name: getattr(recipe, name).model_dump(mode="json") for name in stage.sections}
    if by_speed(stage):
        sections = _without_neutral(sections)
    if uses_model(stage):
        sections |= {"model": _without_neutral(recipe.model.model_dump(mode="json")), "vocab": recipe.tokenizer.vocab_size}
    text = json.dumps([stage.kind, dict(stage.params), sections], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_neutral(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_neutral(item) for key, item in value.items() if key not in NEUTRAL}
    return value
