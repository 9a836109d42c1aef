"""`make bench-tables`: the tables of docs/benchmarks.md, made from benchmarks/results/*.json so that no number lacks its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def main() -> None:
    """Replace what stands between the markers of the page. Raises ValueError when the markers are gone."""
    page = PAGE.read_text(encoding="utf-8")
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{PAGE} lacks the markers {BEGIN} and {END}")
    tables = "\n\n".join(table(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob("*.json")))
    PAGE.write_text(f"{head}{BEGIN}\n\n{tables}\n\n{END}{tail}", encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """One benchmark as a Markdown table. A ratio above 1 is in our favour whichever way is better."""
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
