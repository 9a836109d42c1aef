"""`python -m benchmarks.curves.plot`: draw docs/curves.svg from benchmarks/results/curves-*.json, one panel per machine."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.curves.curve import Curve
from benchmarks.process import ROOT
from benchmarks.result import RESULTS

PAGE = ROOT / "docs" / "curves.svg"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460, 320, 56, 34, 14, 44
# One per job, in the order in which they are recorded.
COLORS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37", "#bf8700", "#57606a")
SKIP = 0.06  # of the time: with the first steep fall in view the rest would be a flat line


def main() -> None:
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("curves-*.json"))]
    panels = [panel(one, index * WIDTH) for index, one in enumerate(found)]
    size = f'width="{WIDTH * len(found)}" height="{HEIGHT}" viewBox="0 0 {WIDTH * len(found)} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11" fill="#24292f"'
    text = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n<rect width="100%" height="100%" fill="#fff"/>\n'
    PAGE.write_text(text + "\n".join(panels) + "\n</svg>\n", encoding="utf-8")


def panel(result: dict[str, Any], x: int) -> str:
    curves = [Curve(**curve) for row in result["rows"] for curve in row.get("runs", [])]
    names = list(dict.fromkeys(curve.name for curve in curves))
    longest = max(curve.seconds for curve in curves)
    shown = [bpb for curve in curves for t, bpb in curve.points if t >= SKIP * longest]
    low, high = min(shown), max(shown)

    def at(t: float, bpb: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * t / longest
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (high - bpb) / (high - low)

    parts = [f'<g transform="translate({x} 0)">', f'<text x="{LEFT}" y="20">{result["device"]}</text>']
    for tick in ticks(low, high):
        y = at(0, tick)[1]
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/><text x="12" y="{y + 4:.1f}">{tick:.2f}</text>'
        )
    under = f'y="{HEIGHT - BOTTOM + 16}" text-anchor="middle"'
    parts.extend(f'<text x="{at(tick, low)[0]:.1f}" {under}>{tick:g}</text>' for tick in ticks(0, longest))
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">seconds of training; bits per byte upwards</text>'
    )
    for curve in curves:
        line = " ".join("{:.1f},{:.1f}".format(*at(t, b)) for t, b in curve.points if b <= high)
        color = COLORS[names.index(curve.name) % len(COLORS)]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.6"/>')
    for index, name in enumerate(names):
        y, color = TOP + 14 + 16 * index, COLORS[index % len(COLORS)]
        parts.append(f'<path d="M{WIDTH - 160} {y - 4}h18" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - 136}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</g>"])


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    step = next(s for s in (10.0**e * m for e in range(-4, 6) for m in (1, 2, 5)) if (high - low) / s <= 6)
    return [step * k for k in range(int(low / step), int(high / step) + 1) if low <= step * k <= high]


if __name__ == "__main__":
    main()
