"""Which models there are to talk to, which one is chosen, and what to say when that changes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from client.errors import ApiError, ClientError
from client.inference import ServedModel
from services.ui.chat.examples import examples, is_continued
from services.ui.platform import Platform

NO_MODEL = (
    "No model to talk to yet. A run's chat model appears here as soon as its SFT stage succeeds. Any other checkpoint can be"
    " promoted on the page of its run."
)

NOT_YOURS = "The inference service does not accept your key. It serves the models of another project."


def label(model: ServedModel, stages: dict[str, str]) -> str:
    """The model's run, stage and step. `stages` has the names that people call stages by."""
    if not model.stage:
        return model.id
    return f"{model.run_name or model.run_id} · {stages.get(model.stage, model.stage)} · step {model.step}"


@dataclass(slots=True)
class Offer:
    """What one page offers. `chosen` changes only by the visitor, or if the model is gone; either way the page says so."""

    models: list[ServedModel] = field(default_factory=list)
    chosen: str | None = None
    default: str | None = None
    problem: str = ""
    notice: str = ""
    switch_to: str | None = None  # the model that the notice offers
    sent: Any = None  # what the page shows already
    _stages: dict[str, str] = field(default_factory=dict)
    _examples: tuple[str, list[str]] = ("", [])  # of the model with this id

    def refresh(self, platform: Platform) -> None:
        """Read the list of models."""
        try:
            self.models = platform.inference.served()
        except ClientError as err:
            refused = isinstance(err, ApiError) and err.status == 401
            self.problem = NOT_YOURS if refused else f"The inference service does not answer: {err}"
            return
        self.problem = "" if self.models else NO_MODEL
        if not self._stages:
            with suppress(ClientError):  # without the control API there are still models to talk to
                self._stages = {stage.name: stage.short for stage in platform.api.catalog().stages}
        before, self.default = self.default, next((m.id for m in self.models if m.default), None)
        if self.switch_to and self.find(self.switch_to) is None:
            self.notice, self.switch_to = "", None
        self._keep()
        if before and self.default not in (None, before, self.chosen):
            self.notice = f"{self.name(self.default)} is the newest model now. You still talk to {self.name(self.chosen)}."
            self.switch_to = self.default

    def pick(self, model: str | None) -> None:
        """Choose a model of the list."""
        self.chosen, self.notice, self.switch_to = model, "", None

    def link(self, model: str, run: str) -> None:
        """Choose the model that an address names by its id, or the newest one of the run that it names."""
        found = next((m.id for m in self.models if model == m.id or (run and run in (m.run_id, m.run_name))), None)
        self.pick(found or self.chosen)
        if found is None and self.models:
            what = f"The model {model}" if model else f"The run {run}"
            self.notice = f"{what} has no promoted checkpoint to talk to. You talk to {self.name(self.chosen)}."

    def find(self, model_id: str | None) -> ServedModel | None:
        return next((m for m in self.models if m.id == model_id), None)

    def name(self, model_id: str | None) -> str:
        found = self.find(model_id)
        return label(found, self._stages) if found else str(model_id)

    def choices(self) -> list[tuple[str, str]]:
        return [(label(m, self._stages) + (" (newest)" if m.id == self.default else ""), m.id) for m in self.models]

    def shown(self, platform: Platform) -> dict[str, Any]:
        """What the browser gets."""
        chosen = self.find(self.chosen)
        return {
            "chosen": self.chosen,
            "label": self.name(self.chosen) if chosen else "",
            "continues": bool(chosen and is_continued(chosen)),
            "examples": self._fitting(platform, chosen) if chosen else [],
            "problem": self.problem,
            "notice": self.notice,
            "switch_to": self.switch_to,
        }

    def _fitting(self, platform: Platform, model: ServedModel) -> list[str]:
        if self._examples[0] != model.id:
            self._examples = model.id, examples(platform.api, model)
        return self._examples[1]

    def _keep(self) -> None:
        if self.find(self.chosen) is not None or not self.models:
            return
        gone, self.chosen = self.chosen, self.default or self.models[0].id
        if gone:
            self.notice, self.switch_to = f"{gone} is not promoted any more. {self.name(self.chosen)} answers now.", None
