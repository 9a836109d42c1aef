"""Write the report card in its three forms."""

from __future__ import annotations

from pathlib import Path

from nanochat.contract.contract import write_text
from nanochat.report import markdown, page
from nanochat.report.card import Report

JSON, MARKDOWN, HTML = "report.json", "report.md", "report.html"


def all_forms(report: Report, folder: Path) -> None:
    """Write `report.md`, `report.html` and `report.json` into the folder, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        (MARKDOWN, markdown.render(report)),
        (HTML, page.render(report)),
        (JSON, report.model_dump_json()),
    ):
        write_text(folder / name, text.encode("utf-8", "replace").decode("utf-8"))  # a model's text may hold half a character
