"""The dashboard's HTML: text from elsewhere stays text, and only the templates hold markup."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import gradio as gr
import pytest

import services.ui
from client.client import Client
from client.models import Attempt, LogLine, Progress, Run, RunSummary, Stage, Worker
from services.ui import new_run, run_detail, run_list
from services.ui.html import alert, header
from tests.catalog import CATALOG

FOLDER = Path(services.ui.__file__).parent
HARMLESS = "plain"
HOSTILE = """</td></div><script>alert(1)</script><img src=x onerror="alert(2)"> ' " & &amp; {{ 1 + 1 }}"""
THEN = datetime(2026, 3, 1, tzinfo=UTC)


def stage(text: str, status: str) -> Stage:
    progress = Progress(done=3, total=6, unit=text, eta_s=9.0, note=text)
    attempts = [Attempt(no=no, status=text, reason=text, message=text, worker=text, started_at=THEN) for no in (1, 2)]
    latest: dict[str, float | str | None] = {"loss": text, "val_bpb": text, "tok_per_s": text}
    return Stage(
        name=text,
        kind=text,
        queue=text,
        status=status,
        reason=text,
        message=text,
        progress=progress,
        latest=latest,
        attempts=attempts,
    )


def run(text: str, status: str) -> Run:
    stages = [stage(text, "SUCCEEDED"), stage(text, "FAILED"), stage(text, "RUNNING"), stage(text, text)]
    return Run(id=text, name=text, recipe=text, status=status, detail=text, created_at=THEN, config={}, stages=stages)


def summary(text: str) -> RunSummary:
    return RunSummary(id=text, name=text, recipe=text, status=text, detail=text, created_at=THEN, stages_done=1, stages_total=2)


def worker(text: str) -> Worker:
    return Worker(id=text, queue=text, hostname=text, status=text, gpu_name=text, heartbeat_at=THEN)


PANELS: dict[str, Callable[[str], str]] = {
    "header": lambda text: header(run_list.workers_line([worker(text)]), problem=text),
    "alert": lambda text: alert(text, bad=True),
    "list of runs": lambda text: run_list.run_list([summary(text)], text),
    "no runs": lambda text: run_list.no_runs(text),
    "headline": lambda text: run_detail.headline(run(text, text), CATALOG),
    "headline of a failed run": lambda text: run_detail.headline(run(text, "FAILED"), CATALOG),
    "stages": lambda text: run_detail.stage_table(run(text, "FAILED"), CATALOG),
    "log": lambda text: run_detail.log_lines([LogLine(id=1, stage=text, attempt=1, t=0.0, line=text)] * 2),
}


class Parsed(HTMLParser):
    """The tags of a page with the names of their attributes, the values of these, and the text between the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, ...]] = []
        self.attributes = self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.attributes += "".join(value or "" for _, value in attrs)

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("panel", PANELS)
def test_hostile_text_is_shown_as_it_is_and_adds_no_markup(panel: str) -> None:
    harmless, hostile = (Parsed(PANELS[panel](text)) for text in (HARMLESS, HOSTILE))
    assert hostile.tags == harmless.tags
    assert HOSTILE in hostile.text + hostile.attributes


def test_a_refused_form_shows_the_line_as_text() -> None:
    with pytest.raises(gr.Error) as refused:
        new_run.submit(Client("http://127.0.0.1:1", "key"), "tiny", "", "<script>alert(1)</script>")
    told = Parsed(str(refused.value.message))
    assert told.tags == []
    assert "line 1: '<script>alert(1)</script>' is not of the form" in told.text


def test_the_log_has_a_line_break_between_lines_and_nowhere_else() -> None:
    """`.nc-log` shows white space as it is."""
    lines = [LogLine(id=i, stage="sft", attempt=1, t=0.0, line=f"step {i}") for i in range(2)]
    assert Parsed(run_detail.log_lines(lines)).text == "           sft │ step 0\n           sft │ step 1"


def test_markup_stands_in_the_templates_and_nowhere_else() -> None:
    for file in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                assert not any("</" in str(part.value) for part in node.values if isinstance(part, ast.Constant)), (
                    f"{file.name}:{node.lineno} builds HTML by hand; write a template in {FOLDER / 'templates'}"
                )


def test_no_template_turns_the_escaping_off() -> None:
    templates = list((FOLDER / "templates").glob("*.html"))
    assert templates
    for template in templates:
        text = template.read_text(encoding="utf-8")
        assert "safe" not in text, template.name
        assert "autoescape" not in text, template.name
