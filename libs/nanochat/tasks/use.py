"""How a recipe names tasks: the names that each of its lists accepts, and one entry of a mixture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from nanochat.contract.bounds import GeneratedRows, PathText, Repeats, Rows
from nanochat.tasks.catalog import BY_NAME, JUDGED, REWARDED, TRAINABLE

if TYPE_CHECKING:  # a type checker cannot follow a computed Literal
    TrainableTask = str
    JudgedTask = str
    RewardedTask = str
else:
    TrainableTask, JudgedTask, RewardedTask = Literal[TRAINABLE], Literal[JUDGED], Literal[REWARDED]


def _with_short_form(schema: dict[str, Any]) -> None:
    """`{"jsonl": "chats.jsonl", "epochs": 2}` is short for `{"task": "jsonl", "path": "chats.jsonl", "repeat": 2}`."""
    fields = schema["properties"]
    path = next(kind for kind in fields["path"]["anyOf"] if kind["type"] == "string")
    fields["jsonl"] = {**path, "title": "Jsonl", "description": "Short for `task` = jsonl with this `path`."}
    fields["epochs"] = {
        **{key: value for key, value in fields["repeat"].items() if key != "default"},
        "title": "Epochs",
        "description": "Another name of `repeat`.",
    }
    del schema["required"]
    schema["anyOf"] = [{"required": ["task"]}, {"required": ["jsonl"]}]


class TaskUse(BaseModel):
    """One task in a mixture of conversations to train or validate on."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_with_short_form)

    task: TrainableTask = Field(description="Name of the task; `jsonl` is a file of your own conversations.")
    split: str = Field(default="train", pattern=r"^[a-z][a-z0-9_]{0,40}$", description="Split of the task's data.")
    limit: Rows | None = Field(default=None, description="Take only this many rows, the first; null means all of them.")
    repeat: Repeats = Field(
        default=1, validation_alias=AliasChoices("repeat", "epochs"), description="How many times the mixture holds each row."
    )
    size: GeneratedRows | None = Field(
        default=None, description="Rows to generate, for a generated task such as spelling; null means 1000."
    )
    path: PathText | None = Field(
        default=None,
        validation_alias=AliasChoices("path", "jsonl"),
        description="File of your own conversations, for the task jsonl: a path or a URL. A relative path starts at the folder "
        "`data.tasks` if that is one. docs/data.md shows the forms that are read.",
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"task": "jsonl", **value} if isinstance(value, dict) and "jsonl" in value else value


class OwnFile(BaseModel):
    """An entry of a mixture that reads a file: the path of its field in the recipe, and the path or URL of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    place: str
    limit: int | None = None


class OwnMixture(BaseModel):
    """The files of one mixture. `alone` says that the mixture has nothing else, `keep` how many tokens of a row are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    files: tuple[OwnFile, ...]
    alone: bool
    keep: int


class OwnTask(BaseModel):
    """A user's own evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]{0,40}$",
        description="Name of the task in results and report. Without `jsonl`, a task of this name that an installed package offers.",
    )
    jsonl: PathText | None = Field(
        default=None,
        description="File of questions with answers; a relative path starts at the folder `data.tasks` if that is one. "
        "docs/evaluations.md shows the forms.",
    )

    @model_validator(mode="after")
    def _a_name_of_its_own(self) -> OwnTask:
        if self.name in BY_NAME:
            raise ValueError(f"the name {self.name!r} is that of a task of the table; choose another one")
        return self
