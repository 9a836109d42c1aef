"""The Chat page: choose a promoted model, set the sampling parameters, talk to it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from client.errors import ClientError
from client.inference import ServedModel
from services.ui.chat_turn import History, Sampling, Turns, answer, text_of
from services.ui.html import alert, header
from services.ui.platform import Platform

DEFAULT = ""  # the server chooses: the newest model that it could load
EXAMPLES = ("Who are you?", "Spell the word banana.", "How many r are in strawberry?", "What is 37 + 48?")
PLACEHOLDER = "### Talk to the model you trained\nPick an example, or write your own."
NO_MODEL = (
    "No model to talk to yet. A run's chat model appears here as soon as its sft stage succeeds. Start a run on the Runs page."
)


@dataclass(frozen=True, slots=True)
class Knobs:
    """The components whose values make a Sampling, in the order of its fields."""

    model: gr.Dropdown
    system: gr.Textbox
    temperature: gr.Slider
    top_p: gr.Slider
    top_k: gr.Slider
    max_tokens: gr.Slider
    seed: gr.Textbox

    def inputs(self) -> list[Any]:
        return [self.model, self.system, self.temperature, self.top_p, self.top_k, self.max_tokens, self.seed]


@dataclass(frozen=True, slots=True)
class Parts:
    """The components of the conversation."""

    log: gr.Chatbot
    entry: gr.Textbox
    send: gr.Button
    stop: gr.Button
    stats: gr.HTML
    clear: gr.Button


def build(demo: gr.Blocks, platform_of: Callable[[gr.Request], Platform], poll_s: float) -> None:
    """Add the page's components and event handlers to `demo`, whose `with` block is open."""
    timer = gr.Timer(2 * poll_s)
    gr.HTML(header(), elem_id="header", apply_default_css=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=9, min_width=420):
            notice = gr.HTML("", elem_id="chat-notice", apply_default_css=False)
            log = gr.Chatbot(
                elem_id="chat-log",
                show_label=False,
                height="62vh",
                placeholder=PLACEHOLDER,
                examples=[{"text": text} for text in EXAMPLES],
                editable="user",
                buttons=["copy"],
                feedback_options=None,
                layout="bubble",
            )
            with gr.Row(equal_height=True):
                entry = gr.Textbox(
                    show_label=False,
                    placeholder="Message the model; Enter sends, Shift+Enter starts a new line",
                    lines=1,
                    max_lines=8,
                    scale=8,
                    autofocus=True,
                    elem_id="chat-input",
                    container=False,
                )
                send = gr.Button("Send", variant="primary", scale=0, min_width=110, elem_id="send")
                stop = gr.Button("◼ Stop", variant="stop", scale=0, min_width=110, elem_id="stop", visible=False)
            stats = gr.HTML("", elem_id="chat-stats", elem_classes="nc-stats", apply_default_css=False)
        with gr.Column(scale=3, min_width=260):
            knobs = _knobs()
            clear = gr.Button("Clear conversation", elem_id="clear")

    models: dict[str, Any] = {"inputs": knobs.model, "outputs": [knobs.model, notice, send], "show_progress": "hidden"}
    models |= {"api_visibility": "private"}

    def look(chosen: str | None, request: gr.Request) -> tuple[Any, str, Any]:
        return offered(platform_of(request), chosen)

    demo.load(look, **models)
    timer.tick(look, **models)
    _wire(platform_of, Parts(log, entry, send, stop, stats, clear), knobs)


def _knobs() -> Knobs:
    model = gr.Dropdown([("default", DEFAULT)], value=DEFAULT, label="Model", elem_id="model")
    with gr.Accordion("Sampling", open=True, elem_id="sampling"):
        temperature = gr.Slider(0, 2, value=0.6, step=0.05, label="Temperature", elem_id="temperature")
        top_k = gr.Slider(0, 200, value=50, step=1, label="Top-k (0 = off)", elem_id="top-k")
        top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", elem_id="top-p")
        max_tokens = gr.Slider(0, 2048, value=256, step=16, label="Max tokens (0 = all)", elem_id="max-tokens")
        seed = gr.Textbox(label="Seed", placeholder="new each time", max_lines=1, elem_id="seed")
    with gr.Accordion("System prompt", open=False):
        system = gr.Textbox(show_label=False, lines=3, placeholder="optional", elem_id="system-prompt", container=False)
    return Knobs(model, system, temperature, top_p, top_k, max_tokens, seed)


def offered(platform: Platform, chosen: str | None) -> tuple[Any, str, Any]:
    """Updates for the model choice, the notice above the chat, and the Send button."""
    try:
        models = platform.inference.served()
    except ClientError as err:
        return gr.skip(), alert(f"The inference service is not available: {err}", bad=True), gr.update(interactive=False)
    choices = [("default", DEFAULT), *((_label(m), m.id) for m in models)]
    kept = chosen if chosen in [value for _, value in choices] else DEFAULT
    notice = "" if models else alert(NO_MODEL)
    return gr.update(choices=choices, value=kept), notice, gr.update(interactive=bool(models))


def _label(model: ServedModel) -> str:
    named = f"{model.run_name} · {model.stage} · step {model.step}" if model.run_name else model.id
    return escape(named, quote=False)


def _wire(platform_of: Callable[[gr.Request], Platform], parts: Parts, knobs: Knobs) -> None:
    log, entry, send, stop, stats, clear = parts.log, parts.entry, parts.send, parts.stop, parts.stats, parts.clear
    turns = gr.State(Turns())

    def ask(text: str, history: History) -> tuple[str, History]:
        """Move the text of the entry into the conversation."""
        return ("", [*history, {"role": "user", "content": text.strip()}]) if text.strip() else (text, history)

    def reply(request: gr.Request, history: History, turns: Turns, *knob_values: Any) -> Generator[tuple[History, str]]:
        if history and history[-1]["role"] == "user":
            yield from answer(platform_of(request), history, sampling(*knob_values), turns)

    def again(history: History, event: gr.RetryData) -> History:
        """The conversation up to the user's message that gets a new answer."""
        return history[: last_user(history, _index(event)) + 1]

    def undone(history: History, event: gr.UndoData) -> tuple[History, str]:
        at = last_user(history, _index(event))
        return history[:at], text_of(history[at]["content"]) if history else ""

    def edited(history: History, event: gr.EditData) -> History:
        return [*history[: _index(event)], {"role": "user", "content": str(event.value)}]

    def example(history: History, event: gr.SelectData) -> History:
        return [*history, {"role": "user", "content": str(event.value["text"])}]

    def stop_it(turns: Turns) -> None:
        turns.stopped = True

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    now: dict[str, Any] = {**quiet, "queue": False}
    asked = [
        gr.on([send.click, entry.submit], ask, [entry, log], [entry, log], **now),
        log.retry(again, log, log, **now),
        log.edit(edited, log, log, **now),
        log.example_select(example, log, log, **now),
    ]
    buttons = [send, stop, clear]
    for event in asked:
        busy = event.then(lambda: _buttons(busy=True), None, buttons, **now)
        said = busy.then(reply, [log, turns, *knobs.inputs()], [log, stats], **quiet)
        said.then(lambda: _buttons(busy=False), None, buttons, **now)
    stop.click(stop_it, turns, None, **now)
    clear.click(lambda: ([], ""), None, [log, stats], **now)
    log.undo(undone, log, [log, entry], **now)


def _buttons(*, busy: bool) -> tuple[Any, Any, Any]:
    """Updates for Send, Stop and Clear. While an answer is written, Stop replaces Send and Clear is disabled."""
    return gr.update(visible=not busy), gr.update(visible=busy), gr.update(interactive=not busy)


def _index(event: gr.RetryData | gr.UndoData | gr.EditData) -> int:
    return event.index if isinstance(event.index, int) else event.index[0]


def sampling(
    model: str | None,
    system: str | None,
    temperature: float,
    top_p: float,
    top_k: float,
    max_tokens: float,
    seed: str | None,
) -> Sampling:
    """The values of the knobs as a Sampling. Gradio gives None for a text box that nobody has edited.

    Raises gr.Error when the seed is not a whole number.
    """
    wish = (seed or "").strip()
    if wish and not wish.isdecimal():
        raise gr.Error("The seed must be a whole number. Leave it empty to get a new one each time.", title="Not sent")
    number = int(wish) if wish else None
    return Sampling(model or None, system or "", temperature, top_p, int(top_k), int(max_tokens), number)


def last_user(history: History, index: int) -> int:
    """The index of the last user's message at or before `index`; 0 when there is none."""
    return next((i for i in range(min(index, len(history) - 1), -1, -1) if history[i]["role"] == "user"), 0)
