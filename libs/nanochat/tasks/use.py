"""How a recipe names tasks: the names that each of its lists accepts, and one entry of a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from nanochat.contract.bounds import GeneratedRows, PathText, Repeats, Rows
from nanochat.tasks.catalog import JUDGED, REWARDED, TRAINABLE

if TYPE_CHECKING:  # a type checker cannot follow a computed Literal
    TrainableTask = str
    JudgedTask = str
    RewardedTask = str
else:
    TrainableTask, JudgedTask, RewardedTask = Literal[TRAINABLE], Literal[JUDGED], Literal[REWARDED]


class TaskUse(BaseModel):
    """One task in a mixture of conversations to train or validate on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: TrainableTask = Field(description="Name of the task; `jsonl` is a file of your own conversations.")
    split: str = Field(default="train", pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Split of the task's data.")
    limit: Rows | None = Field(default=None, description="Take only this many rows, the first; null means all of them.")
    repeat: Repeats = Field(default=1, description="How many times the mixture holds each row.")
    size: GeneratedRows | None = Field(
        default=None, description="Rows to generate, for a generated task such as spelling; null means 1000."
    )
    path: PathText | None = Field(
        default=None,
        description="File of conversations, for the task jsonl; relative to the folder `data.tasks` if that is one.",
    )
