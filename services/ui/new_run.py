"""The new-run form: a recipe and lines of `field = value` that override its fields."""

from __future__ import annotations

import gradio as gr
from markupsafe import Markup

from client import overrides
from client.client import Client
from client.errors import ApiError, ClientError
from client.models import ESTIMATE, Plan, Run
from client.text import flops, number, seconds

QUICKEST = "tiny"


def recipe_names(api: Client) -> list[str]:
    """The shipped recipes, the quickest one first. While the API is down, only the quickest one."""
    try:
        return sorted((r.name for r in api.recipes()), key=lambda name: (name != QUICKEST, name))
    except ClientError:
        return [QUICKEST]


def submit(api: Client, recipe: str, name: str, changes: str) -> Run:
    """Submit the run. Raises gr.Error with the API's message about each field."""
    try:
        return api.submit(recipe, overrides.parse_text(changes), name.strip() or None)
    except ClientError as err:
        raise gr.Error(_lines(err), title="Not started") from err


def plan(api: Client, recipe: str, changes: str) -> str:
    """Size, length and cost of the run, as Markdown. Raises gr.Error when the recipe is refused."""
    try:
        return _plan(api.plan(recipe, overrides.parse_text(changes)))
    except ClientError as err:
        raise gr.Error(_lines(err), title="This recipe would be refused") from err


def _plan(answer: Plan) -> str:
    figures = answer.figures
    where = f"{figures.world_size} × {figures.gpu}" if figures.gpu else f"{figures.world_size} process(es)"
    lines = [
        f"**{answer.recipe}** is accepted: {len(answer.stages)} stages, {number(figures.params)} parameters,"
        f" {flops(figures.total_flops)} FLOPs on {where}"
    ]
    if figures.hours is not None:
        cost = f", about ${figures.usd:.2f}" if figures.usd is not None else ""
        measured = sum(s.source != ESTIMATE for s in figures.stages) + len(figures.others)
        basis = f" ({measured} stages as measured here in earlier runs)" if measured else ""
        lines.append(f"- it takes about {seconds(3600 * figures.hours)}{cost}{basis}")
    lines += [
        f"- {s.stage}: {number(s.steps)} steps" + (f", {number(s.tokens)} tokens" if s.tokens is not None else "")
        for s in figures.stages
        if s.steps is not None
    ]
    lines += [f"- ⚠ {warning}" for warning in answer.warnings]
    return "\n".join(lines)


def _lines(err: Exception) -> str:
    """Each field's problem on a line of its own, as HTML, which is what a toast shows."""
    fields = [f"{e.field}: {e.message}" for e in err.errors] if isinstance(err, ApiError) else []
    return str(Markup("<br>").join(fields or str(err).splitlines()))  # Markup.join escapes each line
