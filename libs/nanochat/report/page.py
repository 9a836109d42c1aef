"""The report card as one HTML file that needs nothing else: no script, no font, no address outside.

Everything that a model, a user or a run wrote is escaped by the template, and the page's own policy forbids scripts and requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nanochat.planning import metrics
from nanochat.planning.graph import STAGES
from nanochat.report import answers, bars, cells, facts, scores, sections
from nanochat.report.card import Note, Report, StageCard
from nanochat.report.plots import Plot, plot
from nanochat.report.summary import COLUMNS, TASKS

FOLDER = Path(__file__).parent / "page"
PROMPT = 400  # characters of a question that are shown
NOTE_TITLES = {
    "missing": "What is missing",
    "cut short": "What was cut short",
    "resumed": "What was resumed",
    "warning": "Warnings",
}
TRAINING = {d.name for d in STAGES if d.trains}
# The order of the plots; others follow.
FIRST = ("loss", "reward", "val_bpb", "val_loss", "pass_at_1", "lrm", "tok_per_s", "mfu")
_VOWEL = re.compile(r"8|1[18](?!\d)")  # numbers whose name begins with one: 8, 80, 800, 11 and 18, but not 110
UNDRAWN = {"dt_ms", "usd"}  # follow from the speed, which is drawn


def render(report: Report) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup((FOLDER / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html").render(
        style=style,
        report=report,
        title=report.name or report.run,
        lede=lede(report),
        tiles=scores.tiles(report),
        facts=facts.system(report),
        columns=facts.columns(report),
        summary=report.summary,
        summary_errors={column: any(column in row.errors for row in report.summary) for column in COLUMNS},
        training_times=facts.training_times(report),
        notes=_notes(report.notes),
        published=scores.published(report),
        timeline=_timeline(report),
        price=facts.price(report.cost) if report.cost else "",
        curves=_curves(report),
        core=scores.core(report),
        chat=scores.chat(report),
        completions=_completions(report),
        conversations=[
            found
            for found in (_conversations(report), ("Answers during reinforcement learning", _rollouts(report)))
            if found[1]
        ],
        stages=[(stage, sections.of(stage)) for stage in report.begun],
        lineage=report.lineage,
        moment=facts.moment,
        number=cells.number,
        size=cells.size,
    )


def lede(report: Report) -> str:
    """What was trained, on what, in which time and for how much: one sentence of what is known."""
    base, on = report.results("base_train"), facts.trained(report, "device")
    params = facts.trained(report, "params").get("params")
    if not params:
        took = f", {cells.duration(report.total_seconds)} from its first start to its last end" if report.total_seconds else ""
        return f"A run of the recipe {report.recipe.get('name', cells.NONE)}{took}."
    model = f"{cells.short(params)}-parameter language model"
    article = "An" if _VOWEL.match(model) else "A"
    said = [f"{article} {model}"]
    if (start := report.stage("start")) is not None and start.state != "left out":
        said.append("made from an earlier one")
    if base.get("tokens"):
        said.append(f"trained on {cells.short(base['tokens'])} tokens")
    if on.get("device") == "cpu":
        said.append(f"with {report.machine['cores']} CPU cores" if report.machine.get("cores") else "with a CPU")
    elif on.get("device"):
        said.append(f"with {on.get('world_size', 1)} × {on['device']}")
    if report.total_seconds:
        said.append(f"in {cells.duration(report.total_seconds)}")
    if report.cost:
        said.append(f"for ${report.cost.usd:,.2f}")
    return " ".join(said) + "."


def _notes(notes: Sequence[Note]) -> list[tuple[str, list[str]]]:
    grouped = {kind: [note.text for note in notes if note.kind == kind] for kind in NOTE_TITLES}
    return [(NOTE_TITLES[kind], texts) for kind, texts in grouped.items() if texts]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stage on the time line."""

    title: str
    state: str
    seconds: str
    attempts: int
    bar: Markup


def _timeline(report: Report) -> list[Stretch]:
    begun = report.begun
    start = min((s.started_at for s in begun if s.started_at), default=0.0)
    total = report.total_seconds or 0.0
    return [
        Stretch(
            stage.title,
            stage.state,
            cells.number("seconds", stage.seconds),
            len(stage.record.attempts),
            bars.span(stage.started_at - start, stage.finished_at - start, total)
            if stage.started_at and stage.finished_at
            else Markup(""),
        )
        for stage in begun
    ]


def _curves(report: Report) -> list[tuple[StageCard, list[Plot]]]:
    """The curves of each training stage; a metric that was never measured has none."""
    order = [*FIRST, *(key for key in metrics.BY_KEY if key not in FIRST)]
    found = []
    for stage in report.begun:
        if stage.name in TRAINING:
            known = [c for c in stage.record.curves if c.key in order and c.key not in UNDRAWN and c.steps]
            resumed = [a.resumed_from_step for a in stage.record.attempts if a.no > 1 and a.resumed_from_step is not None]
            found.append((stage, [plot(c, resumed) for c in sorted(known, key=lambda c: order.index(c.key))]))
    return found


# -- what the model says --


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its continuations, the newest first, each with the step after which the model wrote it."""

    prompt: str
    newest: str
    earlier: list[tuple[str, str]]


def _completions(report: Report) -> list[Completion]:
    train, measured = report.stage("base_train"), report.results("base_eval").get("samples") or []
    texts: dict[str, list[tuple[str, str]]] = {}
    for sample in train.record.samples if train else []:
        texts.setdefault(sample.prompt, []).append((f"step {sample.step:,}", sample.text))
    final = {str(s.get("prompt")): str(s.get("text")) for s in measured if isinstance(s, Mapping)}
    found = []
    for prompt in {**final, **texts}:
        said = texts.get(prompt, [])
        newest = final.get(prompt)
        if newest is None:
            *said, (_, newest) = said
        elif said and said[-1][1] == newest:
            said = said[:-1]
        found.append(Completion(cells.clipped(prompt, PROMPT), cells.clipped(newest, answers.TEXT), list(reversed(said))))
    return found


@dataclass(frozen=True, slots=True)
class Conversation:
    """A question of an evaluation and the model's answer."""

    task: str
    question: str
    parts: list[answers.Part]
    right: bool | None
    reward: str = ""


def _conversations(report: Report) -> tuple[str, list[Conversation]]:
    """The samples of the newest chat model that was evaluated, with the title of its evaluation."""
    for stage in reversed(report.begun):
        told = [s for s in sections.of(stage).samples if "completion" in s]
        if told:
            return stage.title, [_conversation(sample) for sample in told]
    return "", []


def _rollouts(report: Report) -> list[Conversation]:
    """Answers that were sampled during reinforcement learning, the newest first."""
    stage = report.stage("rl")
    samples = sorted(stage.record.samples if stage else [], key=lambda s: -s.step)
    return [
        Conversation(
            f"step {s.step:,}",
            cells.clipped("".join(part.text for part in answers.parts(s.prompt)).strip("\n"), PROMPT),
            answers.parts(s.text),
            None,
            "" if s.reward is None else f"reward {s.reward:g}",
        )
        for s in samples
    ]


def _conversation(sample: Mapping[str, Any]) -> Conversation:
    task, prompt, right = str(sample.get("task", "")), str(sample.get("prompt", "")), sample.get("right")
    return Conversation(
        TASKS.get(task, task),
        cells.clipped(prompt, PROMPT).strip("\n"),
        answers.parts(str(sample["completion"])),
        right if isinstance(right, bool) else None,
    )
