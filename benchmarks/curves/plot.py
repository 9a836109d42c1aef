"""`python -m benchmarks.curves.plot`: draw docs/curves.svg from benchmarks/results/curves-*.json, one panel per machine."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.curves.curve import Curve
from benchmarks.process import ROOT
from benchmarks.result import RESULTS
from client import svg

PAGE = ROOT / "docs" / "curves.svg"
SKIP = 0.06  # of the time: with the first steep fall in view the rest would be a flat line


def main() -> None:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("curves-*.json"))]
    PAGE.write_text(svg.page([panel(one) for one in found]), encoding="utf-8")


def panel(result: dict[str, Any]) -> svg.Panel:
    curves = [Curve(**curve) for row in result["rows"] for curve in row.get("runs", [])]
    lines = [svg.Line(curve.name, [(t, bpb) for t, bpb in curve.points]) for curve in curves]
    return svg.Panel(result["device"], "seconds of training; bits per byte upwards", lines, SKIP)


if __name__ == "__main__":
    main()
