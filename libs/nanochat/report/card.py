"""The report card as data: everything that its pages show. `GET /v1/runs/{id}/report` returns it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from nanochat.report.record import StageRecord

# done · failed: it ended with an error · stopped: cancelled, paused or stopped before its end · running · not reached: something
# before it did not succeed · left out: the recipe does not have it
State = Literal["done", "failed", "stopped", "running", "not reached", "left out"]
# cut short: less was done than the benchmark or the recipe says · missing: a figure that is not there · warning: of a stage ·
# resumed: an attempt that went on where another had ended
NoteKind = Literal["missing", "cut short", "resumed", "warning"]


class StageCard(BaseModel):
    """One stage of the run: how it ended, its figures and what it recorded."""

    name: str = Field(description="Node of the stage graph.")
    title: str = Field(description="Its name for people.")
    state: State = Field(description="How it ended.")
    why: str = Field(default="", description="Why it did not succeed; empty if it did.")
    started_at: float | None = Field(default=None, description="Start of the attempt that made the figures, in Unix seconds.")
    finished_at: float | None = Field(default=None, description="End of that attempt, in Unix seconds.")
    seconds: float | None = Field(default=None, description="Wall-clock time of that attempt.")
    results: dict[str, Any] = Field(default={}, description="The figures that it published.")
    record: StageRecord = Field(default=StageRecord(), description="What it recorded while it ran.")


class SummaryRow(BaseModel):
    """One figure of the summary. Columns that have no value are absent."""

    name: str = Field(description="What is measured.")
    values: dict[str, float] = Field(description="The value by column: BASE, MID, SFT or RL.")
    errors: dict[str, float] = Field(default={}, description="The standard error of each value that has one.")


class Note(BaseModel):
    """Something that a reader of the figures has to know."""

    kind: NoteKind = Field(description="What the note is about.")
    text: str = Field(description="The note, for people.")


class Cost(BaseModel):
    """The price of the whole run on its GPUs."""

    gpu: str = Field(description="Name of the GPU in the table of GPUs.")
    gpus: int = Field(description="Number of GPUs.")
    usd_per_hour: float = Field(description="Price of all of them in US dollars per hour.")
    usd: float = Field(
        description="Price in US dollars: of the run's GPU stages, from claim to end, in the ledger of the platform; else of the wall-clock "
        "time from the first start to the last end."
    )


class Setting(BaseModel):
    """A setting in which the run differs from the d20 speedrun."""

    name: str = Field(description="Dotted path of the field.")
    value: str = Field(description="Its value in this run.")
    usual: str = Field(description="Its value in the d20 speedrun.")


class Lineage(BaseModel):
    """The digest of something that the run read or made."""

    what: str = Field(description="What it is, for people.")
    stage: str = Field(description="The stage that published it.")
    sha256: str = Field(description="Its SHA-256 digest; of an artifact, that of its manifest.")
    bytes: int | None = Field(default=None, description="Its size in bytes, if it is known.")
    files: int | None = Field(default=None, description="The number of its files, if it is known.")


class Code(BaseModel):
    """The code that ran, and how much of it there is."""

    version: str = Field(description="Version of the platform, with the commit between releases.")
    characters: int = Field(description="Characters of the source files.")
    lines: int = Field(description="Lines of the source files.")
    files: int = Field(description="Number of source files.")
    tokens: int = Field(description="About as many tokens: a quarter of the characters.")
    dependencies: int | None = Field(default=None, description="Packages pinned in requirements.lock; null: not in a checkout.")
    of: str = Field(description="Which sources were counted.")


class Published(BaseModel):
    """A published figure to compare with."""

    name: str = Field(description="The model, and who measured it.")
    params: str = Field(default="", description="Its size.")
    hardware: str = Field(default="", description="What it was trained on, how long and for how much, where that is published.")
    hours: float | None = Field(default=None, description="Hours of it, where they are published.")
    usd: float | None = Field(default=None, description="Price of it in US dollars, where it is published.")
    core: float | None = Field(default=None, description="CORE.")
    bpb: float | None = Field(default=None, description="Bits per byte on the validation text of nanochat.")
    chatcore: float | None = Field(default=None, description="ChatCORE of the finetuned model, over six tasks.")
    source: str = Field(description="Where the figures come from.")


class Report(BaseModel):
    """The report card of a run."""

    version: int = Field(default=1, description="Version of this form.")
    run: str = Field(description="Id or folder of the run.")
    name: str = Field(default="", description="Name of the run, for people.")
    made_at: float = Field(description="When the report was made, in Unix seconds.")
    state: Literal["complete", "partial"] = Field(description="Whether every stage of the recipe has succeeded.")
    status: str = Field(default="", description="How the run ended or how far it is, in words; empty if it is complete.")
    recipe: dict[str, Any] = Field(description="The whole recipe.")
    machine: dict[str, str | int] = Field(description="The machine that measured the figures, and its software.")
    code: Code = Field(description="The code that ran.")
    stages: list[StageCard] = Field(description="Every stage of the stage graph, in order, but the report itself.")
    summary: list[SummaryRow] = Field(description="The figures of the run at a glance.")
    total_seconds: float | None = Field(description="Seconds from the start of the first stage to the end of the last one.")
    cost: Cost | None = Field(description="What the run cost; null if the price of its hardware is not known.")
    notes: list[Note] = Field(description="What is missing, cut short or worth knowing.")
    settings: list[Setting] = Field(description="The settings in which it differs from the d20 speedrun.")
    lineage: list[Lineage] = Field(description="Digests of data, tokenizer and models.")
    published: list[Published] = Field(description="Published figures to compare with.")

    @property
    def begun(self) -> list[StageCard]:
        return [stage for stage in self.stages if stage.state not in ("not reached", "left out")]

    def stage(self, name: str) -> StageCard | None:
        return next((stage for stage in self.stages if stage.name == name), None)

    def results(self, name: str) -> dict[str, Any]:
        """The figures of a stage; empty when it has none."""
        stage = self.stage(name)
        return stage.results if stage else {}
