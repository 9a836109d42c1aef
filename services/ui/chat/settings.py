"""The settings beside the chat, and the requests that they make of a conversation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from client.inference import Message, ServedModel
from services.ui.chat.examples import is_continued
from services.ui.chat.turn import Ask

SEEDS = range(-(2**63), 2**64)  # what the inference service takes
TOP_LOGPROBS = 5
MOST_TOKENS = 4_096  # in one answer, by the inference service's default limits


class WrongSeed(ValueError):
    """Its text stands beside the field."""


def seed_of(text: str | None) -> int | None:
    """The seed that the text names; None for an empty one. Raises WrongSeed."""
    wanted = (text or "").strip()
    if not wanted:
        return None
    try:
        seed = int(wanted)
    except ValueError:
        raise WrongSeed(
            f"A seed is a whole number, such as 42, or empty for a new one each time. “{wanted[:40]}” is none."
        ) from None
    if seed not in SEEDS:
        raise WrongSeed("A seed is a whole number from −2⁶³ to 2⁶⁴ − 1.")
    return seed


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of the components, in their order on the page. 0 top-k or tokens means no bound."""

    model: str | None
    temperature: float
    compared: bool
    other_model: str | None
    other_temperature: float
    top_k: int
    top_p: float
    max_tokens: int
    seed: str | None
    probabilities: bool
    system: str | None  # Gradio has None for a field that was never touched

    def asks(
        self, talks: Sequence[Sequence[Message]], models: Sequence[ServedModel], name: Callable[[str], str] = str
    ) -> list[Ask]:
        """One request for each side: its conversation of `talks`, its model and its temperature. Raises WrongSeed.

        `name` of a model's id is what to call it.
        """
        sides = [(self.model, self.temperature), (self.other_model or self.model, self.other_temperature)]
        seed = seed_of(self.seed)
        known = {model.id: model for model in models}
        asks = []
        for talk, (chosen, temperature) in zip(talks, sides[: 2 if self.compared else 1], strict=False):
            model = known.get(chosen or "") or ServedModel(id=chosen or "")
            asks.append(Ask(model.id, name(model.id), self.prompt(talk, model), self._sampling(model, temperature, seed)))
        return asks

    def prompt(self, talk: Sequence[Message], model: ServedModel) -> list[Message] | str:
        """The conversation with the system prompt before it. A base model gets all as one text."""
        if is_continued(model):
            return "".join(message["content"] for message in talk)
        system = (self.system or "").strip()
        return [*([Message(role="system", content=system)] if system else []), *talk]

    def _sampling(self, model: ServedModel, temperature: float, seed: int | None) -> dict[str, Any]:
        wanted: dict[str, Any] = {"temperature": temperature, "top_p": self.top_p}
        wanted |= {"top_k": int(self.top_k)} if self.top_k else {}
        if self.max_tokens or is_continued(model):  # a text completion without a bound has 16 tokens, as with OpenAI
            wanted["max_tokens"] = int(self.max_tokens) or MOST_TOKENS
        wanted |= {"seed": seed} if seed is not None else {}
        if self.probabilities:
            wanted |= {"logprobs": TOP_LOGPROBS} if is_continued(model) else {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        return wanted
