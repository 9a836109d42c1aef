"""The report card: as the report stage made it, or of what the ledger knows while a run is at work or when it ended early."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, PlainTextResponse
from pydantic import BaseModel, Field, ValidationError

from controlplane import views
from nanochat.report import markdown, page, write
from nanochat.report.card import Report
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.fields import RunId
from services.api.problems import ProblemError, responses
from services.api.runs import report_so_far

router = APIRouter(prefix="/v1/runs/{run_id}", tags=["runs"])

REFUSED = ("run-not-found", "report-not-ready", "invalid-request")


class MarkdownResponse(PlainTextResponse):
    media_type = "text/markdown"


class ReportView(BaseModel):
    """The report card of a run."""

    markdown: str = Field(description="The report as Markdown.")
    report: Report | None = Field(description="The report as data; null if it was made by a version that had no such form.")


@router.get("/report", responses=responses(*REFUSED))
def get_report(caller: Caller, ledger: Ledger, run_id: RunId) -> ReportView:
    """Get the report card as data and as Markdown. Until the last stage has made it, it tells what is known so far."""
    made = _made_report(ledger, run_id)
    text = _made(ledger, run_id, write.MARKDOWN) if made is None else None
    if text is not None:
        return ReportView(markdown=text, report=None)
    made = made or _so_far(ledger, run_id)
    return ReportView(markdown=markdown.render(made), report=made)


@router.get("/report.md", response_class=MarkdownResponse, responses=responses(*REFUSED))
def get_report_as_markdown(caller: Caller, ledger: Ledger, run_id: RunId) -> MarkdownResponse:
    """Get the report card as Markdown."""
    return MarkdownResponse(get_report(caller, ledger, run_id).markdown)


@router.get("/report.html", response_class=HTMLResponse, responses=responses(*REFUSED))
def get_report_as_page(caller: Caller, ledger: Ledger, run_id: RunId) -> HTMLResponse:
    """Get the report card as one HTML file, which needs no other file and no network."""
    made = _made_report(ledger, run_id)
    text = _made(ledger, run_id, write.HTML) if made is None else None
    return HTMLResponse(page.render(made or _so_far(ledger, run_id)) if text is None else text)


def _made(ledger: Ledger, run_id: str, name: str) -> str | None:
    """A file of the report stage's artifact; None if there is none. Raises ProblemError if its folder cannot be read here."""
    with ledger() as session:
        artifact = views.artifact(session, run_id, "report", "report")
    if artifact is None:
        return None
    folder = Path(artifact.path)
    try:
        return (folder / name).read_text(encoding="utf-8")
    except OSError as err:
        if name != write.MARKDOWN and (folder / write.MARKDOWN).is_file():
            return None
        detail = f"{folder / name} cannot be read here ({err.strerror}); the API and the workers must share NANOCHAT_HOME"
        raise ProblemError("report-not-ready", detail) from err


def _made_report(ledger: Ledger, run_id: str) -> Report | None:
    """The report stage's report under the name that the run has now, and with what the ledger says that the run cost.

    None if there is none, or in a form of another version.
    """
    try:
        made = Report.model_validate_json(_made(ledger, run_id, write.JSON) or "")
    except ValidationError:
        return None
    with ledger() as session:
        run = views.run_view(session, run_id)
    made.name = run.name
    made.cost = report_so_far.cost(made, run.budget)
    return made


def _so_far(ledger: Ledger, run_id: str) -> Report:
    with ledger() as session:
        made = report_so_far.report(session, run_id)
    if made is None:
        raise ProblemError("report-not-ready", f"run {run_id} has no report yet: none of its stages has begun")
    return made
