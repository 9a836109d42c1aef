"""`make bench-tables`: write the tables of docs/benchmarks.md from benchmarks/results/*.json, so that every figure has its run."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.process import ROOT
from benchmarks.result import RESULTS

PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def main() -> None:
    """Replace the text between the two markers of the page. Raises ValueError when a marker is missing."""
    page = PAGE.read_text(encoding="utf-8")
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} lacks the markers {BEGIN} and {END}")
    tables = "\n\n".join(table(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob("*.json")))
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables}\n\n{END}{tail}", encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """One benchmark as a Markdown table. A ratio above 1 is in our favour, whichever direction is better."""
    title = f"### `make bench-{result['bench']}` on {result['device']}, {result['time'][:10]}, commit {result['commit']}"
    lines = ["| what | ours | peer | peer's | ratio | must | |", "|---|---:|---|---:|---:|---:|---|"]
    lines += [
        f"| {row['name']} | {number(row['value'])} {row['unit']} | {row['peer'] or '–'} | {number(row['peer_value'])} "
        f"| {number(row['ratio'])} | {number(row['must'])} | {verdict(row['ok'])} |"
        for row in result["rows"]
    ]
    return "\n".join([title, "", *lines])


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def verdict(ok: bool | None) -> str:
    return {None: "", True: "met", False: "**missed**"}[ok]


if __name__ == "__main__":
    main()
