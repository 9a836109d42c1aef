"""Line plots as SVG, in panels beside each other. `sweep plot` and the benchmarks draw with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from client.text import number

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460, 320, 56, 34, 14, 44  # of a panel
# One for each name, in the order in which they come; further ones are dashed.
COLORS = ("#1f6feb", "#d1242f", "#8250df", "#1a7f37", "#bf8700", "#57606a")
LEGEND = 14  # names that fit beside the lines
NAME_CHARS = 23


@dataclass(frozen=True, slots=True)
class Line:
    """A curve. Lines with one name have one colour and one entry in the legend."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves with common axes. The values of the first `skip` of the width may leave the picture."""

    title: str
    caption: str
    lines: Sequence[Line]
    skip: float = 0.0


def page(panels: Sequence[Panel]) -> str:
    """The whole SVG document."""
    width = WIDTH * len(panels)
    size = f'width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="11" fill="#24292f"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n<rect width="100%" height="100%" fill="#fff"/>\n'
    return head + "\n".join(_panel(panel, index * WIDTH) for index, panel in enumerate(panels)) + "\n</svg>\n"


def _panel(panel: Panel, offset: int) -> str:
    names = list(dict.fromkeys(line.name for line in panel.lines))
    longest = max((x for line in panel.lines for x, _ in line.points), default=0.0) or 1.0
    shown = [y for line in panel.lines for x, y in line.points if x >= panel.skip * longest] or [0.0, 1.0]
    low, high = min(shown), max(shown)
    if low == high:
        low, high = low - 0.5, high + 0.5

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / longest
        return across, TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)

    parts = [f'<g transform="translate({offset} 0)">', f'<text x="{LEFT}" y="20">{escape(panel.title)}</text>']
    for tick in ticks(low, high):
        y = at(0, tick)[1]
        text = f"{tick:.2f}" if 0.05 <= high - low < 100 else f"{tick:.4g}"
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/><text x="12" y="{y + 4:.1f}">{text}</text>')
    under = f'y="{HEIGHT - BOTTOM + 16}" text-anchor="middle"'
    parts.extend(f'<text x="{at(tick, low)[0]:.1f}" {under}>{number(tick)}</text>' for tick in ticks(0, longest))
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(panel.caption)}</text>')
    for line in panel.lines:
        parts += _curve([at(x, y) for x, y in line.points if low <= y <= high], _stroke(names.index(line.name)))
    for index, name in enumerate(names[:LEGEND]):
        y = TOP + 14 + 16 * index
        parts.append(f'<path d="M{WIDTH - 160} {y - 4}h18" {_stroke(index)} stroke-width="2"/>')
        parts.append(f'<text x="{WIDTH - 136}" y="{y}">{escape(_cut(name))}</text>')
    if len(names) > LEGEND:
        parts.append(f'<text x="{WIDTH - 136}" y="{TOP + 14 + 16 * LEGEND}">and {len(names) - LEGEND} more</text>')
    return "\n".join([*parts, "</g>"])


def _curve(points: Sequence[tuple[float, float]], stroke: str) -> list[str]:
    if len(points) == 1:
        return [f'<circle cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="2" fill="none" {stroke}/>']
    line = " ".join("{:.1f},{:.1f}".format(*point) for point in points)
    return [f'<polyline points="{line}" fill="none" {stroke} stroke-width="1.6"/>'] if points else []


def _stroke(index: int) -> str:
    dashes = index // len(COLORS)
    return f'stroke="{COLORS[index % len(COLORS)]}"' + (f' stroke-dasharray="{2 + 3 * dashes} 3"' if dashes else "")


def _cut(name: str) -> str:
    return name if len(name) <= NAME_CHARS else name[: NAME_CHARS - 1] + "…"


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers from `low` to `high`."""
    step = next(s for s in (10.0**e * m for e in range(-300, 300) for m in (1, 2, 5)) if (high - low) / s <= 6)
    return [step * k for k in range(int(low / step), int(high / step) + 1) if low <= step * k <= high]
