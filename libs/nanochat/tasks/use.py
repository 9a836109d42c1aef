"""How a recipe names tasks: the names that each of its lists accepts, and one entry of a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from nanochat.tasks.catalog import JUDGED, REWARDED, TRAINABLE

if TYPE_CHECKING:  # a type checker cannot follow a computed Literal
    TrainableTask = str
    JudgedTask = str
    RewardedTask = str
else:
    TrainableTask, JudgedTask, RewardedTask = Literal[TRAINABLE], Literal[JUDGED], Literal[REWARDED]

Positive = Annotated[int, Field(gt=0)]


class TaskUse(BaseModel):
    """One entry of a mixture. `repeat` oversamples the task, `limit` takes its first rows, `size` is for generated tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TrainableTask = Field(description="name of a task")
    split: str = Field(default="train", description="which split of the task to train on")
    limit: Positive | None = Field(default=None, description="take only the first rows; null: all")
    repeat: Positive = Field(default=1, description="how often each row occurs in one pass over the mixture")
    size: Positive | None = Field(default=None, description="rows of a generated task")
    path: str | None = Field(default=None, description="file of conversations, for task jsonl")
