"""Write the report card in its three forms."""

from __future__ import annotations

from pathlib import Path

from nanochat.report import markdown, page
from nanochat.report.card import Report

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"


def all_forms(report: Report, folder: Path) -> None:
    """Write `report.md`, `report.html` and `report.json` into the folder, each under a temporary name first."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        (MARKDOWN, markdown.render(report)),
        (HTML, page.render(report)),
        (JSON, report.model_dump_json()),
    ):
        draft = folder / f"{name}.tmp"
        draft.write_text(text, encoding="utf-8", errors="replace")
        draft.replace(folder / name)
