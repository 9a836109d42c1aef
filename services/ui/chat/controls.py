"""The settings beside the conversation: models, sampling, system prompt."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import gradio as gr

from services.ui.chat.settings import MOST_TOKENS

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "queue": False}


@dataclass(frozen=True, slots=True)
class Knobs:
    """The components whose values make Settings, in the order of its fields."""

    model: gr.Dropdown
    temperature: gr.Slider
    compared: gr.Checkbox
    other_model: gr.Dropdown
    other_temperature: gr.Slider
    top_k: gr.Slider
    top_p: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Textbox
    probabilities: gr.Checkbox
    system: gr.Textbox

    def inputs(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]


def build() -> tuple[Knobs, gr.HTML]:
    """The components, and the place beside the seed for what is wrong with it."""
    model = gr.Dropdown([], label="Model", elem_id="model")
    temperature = _slider("Temperature", "temperature", 0, 2, 0.6, 0.05)
    compared = gr.Checkbox(False, label="Side by side", info="Two answers to each message", elem_id="compared")
    other_model = gr.Dropdown([], label="Model on the right", elem_id="other-model", visible=False)
    other_temperature = _slider("Temperature on the right", "other-temperature", 0, 2, 1.0, 0.05, visible=False)
    with gr.Accordion("Sampling", open=True, elem_id="sampling"):
        top_k = _slider("Top-k (0 = off)", "top-k", 0, 200, 50, 1)
        top_p = _slider("Top-p", "top-p", 0.05, 1, 1, 0.05)
        max_tokens = _slider("Max tokens (0 = as many as fit)", "max-tokens", 0, MOST_TOKENS, 256, 1)
        seed = gr.Textbox(label="Seed", placeholder="a new one each time", max_lines=1, elem_id="seed")
        wrong_seed = gr.HTML(
            "", html_template='<p class="wrong" role="alert">{{value}}</p>', visible=False, elem_id="seed-wrong"
        )
    probabilities = gr.Checkbox(
        False,
        label="Token probabilities",
        info="Shown as colours; point at a token for its alternatives",
        elem_id="probabilities",
    )
    with gr.Accordion("System prompt", open=False, elem_id="system"):
        system = gr.Textbox(
            label="System prompt", show_label=False, lines=3, placeholder="none", elem_id="system-prompt", container=False
        )
    compared.change(_show_both, compared, [other_model, other_temperature], **QUIET)
    knobs = Knobs(
        model, temperature, compared, other_model, other_temperature, top_k, top_p, max_tokens, seed, probabilities, system
    )
    return knobs, wrong_seed


def _show_both(on: bool) -> tuple[Any, Any]:
    return gr.update(visible=on), gr.update(visible=on)


def _slider(label: str, name: str, low: float, high: float, value: float, step: float, visible: bool = True) -> gr.Slider:
    return gr.Slider(low, high, value=value, step=step, label=label, elem_id=name, visible=visible)
