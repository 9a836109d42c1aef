"""The Chat page: Gradio's components for the settings, and one component of our own for the conversations.

That one is `static/js/chat/`. It keeps the conversations in the browser, and sends events: `say` asks for answers, which come
back as a stream of values of `answer`; `measure` asks how long a conversation is; `choose` names a model. Values for the browser
go through components that are not visible, one for each kind, so that none overwrites another.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import gradio as gr

from services.ui import pages
from services.ui.access.sessions import Visitor
from services.ui.chat import controls
from services.ui.chat.markdown import blocks
from services.ui.chat.measure import measured
from services.ui.chat.models import Offer
from services.ui.chat.settings import MOST_TOKENS, Settings, WrongSeed, seed_of
from services.ui.chat.turn import Turns, answers
from services.ui.platform import Platform

PlatformOf = Callable[[gr.Request], Platform]
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
NOW: dict[str, Any] = {**QUIET, "queue": False}

# Runs in the browser. These names become events of the component because they stand here.
START = """
const events = ["say", "stop", "choose", "measure"];
import("%s").then((app) => app.start(element, { trigger, server, events }));
"""
# A value for the browser. A page makes each module once, so all components share this one.
RECEIVE = """import("%s").then((bus) => bus.receive("%s", props, watch));"""


def build(demo: gr.Blocks, platform_of: PlatformOf, script_url: Callable[[str], str], poll_s: float) -> None:
    """Add the page's components and event handlers to `demo`, whose `with` block is open.

    `platform_of` makes the clients of the visitor who sent a request. `script_url` is the address of a static file.
    """
    top = gr.HTML(pages.top("Chat", None), elem_id="chat-top", elem_classes="nc", apply_default_css=False)
    with gr.Row(elem_id="chat", equal_height=False):
        chat = gr.HTML(
            None,
            html_template="",
            js_on_load=START % script_url("js/chat/app.js"),
            server_functions=[rendered],
            elem_id="chat-app",
            apply_default_css=False,
        )
        with gr.Column(elem_id="chat-settings", min_width=0):
            knobs, wrong_seed = controls.build()
    offer, answer, length = (
        gr.HTML(
            None,
            html_template="",
            js_on_load=RECEIVE % (script_url("js/chat/bus.js"), name),
            visible="hidden",
            elem_id=f"chat-{name}",
        )
        for name in ("offer", "answer", "length")
    )
    seen, turns = gr.State(Offer()), gr.State(Turns())

    # The list of models is read again without the visitor's choice: what was on its way when he chose would undo it.
    def offered(request: gr.Request, seen: Offer, other: str | None, tokens: float) -> list[Any]:
        platform = platform_of(request)
        seen.refresh(platform)
        return _offered(seen, platform, _visitor(request), other, tokens)

    def picked(request: gr.Request, seen: Offer, other: str | None, tokens: float, model: str | None) -> list[Any]:
        seen.pick(model)
        return _offered(seen, platform_of(request), _visitor(request), other, tokens)

    def choose(request: gr.Request, event: gr.EventData, seen: Offer, other: str | None, tokens: float) -> list[Any]:
        seen.link(event.model, event.run)
        return _offered(seen, platform_of(request), _visitor(request), other, tokens)

    def say(request: gr.Request, event: gr.EventData, seen: Offer, turns: Turns, *values: Any) -> Generator[Any]:
        turn = turns.begin()
        try:
            asks = Settings(*values).asks(event.talks, seen.models, seen.name)
        except WrongSeed as err:
            yield {"number": event.number, "refused": str(err), "field": "seed"}, _wrong(str(err))
            return
        for replies in answers(platform_of(request).inference, asks, turn):
            yield {"number": event.number, "answers": replies}, gr.skip()

    def failed() -> dict[str, Any]:
        return {"number": None, "refused": "A setting is out of its bounds, or the dashboard failed; its log says more."}

    def measure(request: gr.Request, event: gr.EventData, seen: Offer, *values: Any) -> dict[str, Any]:
        found = measured(platform_of(request).inference, Settings(*values), event.talk, seen.models)
        return {"number": event.number, **found}

    offering: dict[str, Any] = {"outputs": [knobs.model, knobs.other_model, knobs.max_tokens, offer], **QUIET}
    choice = [seen, knobs.other_model, knobs.max_tokens]

    def headed(request: gr.Request) -> str:
        return pages.top("Chat", _visitor(request))

    demo.load(headed, None, top, **NOW)
    demo.load(offered, choice, **offering)
    gr.Timer(2 * poll_s).tick(offered, choice, **offering)
    knobs.model.input(picked, [*choice, knobs.model], **offering)
    chat.choose(choose, choice, **offering)
    knobs.seed.change(_seed_problem, knobs.seed, wrong_seed, trigger_mode="always_last", **NOW)
    said = chat.say(say, [seen, turns, *knobs.inputs()], [answer, wrong_seed], trigger_mode="multiple", **QUIET)
    said.failure(failed, None, answer, **NOW)
    chat.stop(lambda turns: turns.stop(), turns, None, **NOW)
    chat.measure(measure, [seen, *knobs.inputs()], length, trigger_mode="multiple", **QUIET)


def rendered(texts: list[str]) -> list[list[str]]:
    """The HTML blocks of answers that the browser has kept."""
    return [blocks(text) for text in texts]


def _offered(seen: Offer, platform: Platform, visitor: Visitor, other: str | None, tokens: float) -> list[Any]:
    """Updates for the two choices of a model, the bound of the answer's length, and what the browser shows.

    None if they show it already: an update closes a list that somebody has just opened.
    """
    found, choices = seen.find(seen.chosen), seen.choices()
    other = other if seen.find(other) else seen.chosen
    most = min((found and found.max_model_len) or MOST_TOKENS, MOST_TOKENS)
    shown = {**seen.shown(platform), "owner": visitor.id}
    if seen.sent == (news := (choices, other, most, shown)):
        return [gr.skip()] * 4
    seen.sent = news
    return [
        gr.update(choices=choices, value=seen.chosen),
        gr.update(choices=choices, value=other),
        gr.update(maximum=most, value=most) if tokens > most else gr.update(maximum=most),
        shown,
    ]


def _visitor(request: gr.Request) -> Visitor:
    assert request.request is not None
    visitor: Visitor = request.request.state.visitor
    return visitor


def _seed_problem(text: str) -> Any:
    try:
        seed_of(text)
    except WrongSeed as err:
        return _wrong(str(err))
    return _wrong("")


def _wrong(text: str) -> Any:
    return gr.update(value=text, visible=bool(text))
