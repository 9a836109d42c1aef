"""Curves as SVG: one small plot each, with axes and units, in the colours of the page. Nothing in it is a script.

A bucket of several points is drawn as a band from its lowest to its highest value, with a line through the newest ones. A step
whose value is not finite is a gap in the line and a cross on the axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nanochat.planning import metrics
from nanochat.report import cells
from nanochat.report.curves import Curve

WIDTH, HEIGHT = 340, 196
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 36
HITS = 48  # places of a plot that show their value under the pointer
MARKED = 40  # a curve of as many points or fewer has a mark at each


@dataclass(frozen=True, slots=True)
class Plot:
    """A curve as a figure with a title."""

    title: str
    unit: str
    svg: Markup


def plot(curve: Curve, resumed: Sequence[int] = ()) -> Plot:
    """Draw a curve. `resumed` are the steps from which later attempts went on."""
    metric = metrics.BY_KEY.get(curve.key)
    title, unit = (metric.title, metric.unit) if metric else (curve.key.replace("_", " "), "")
    title = title[:1].upper() + title[1:]
    return Plot(title, unit, Markup("").join(_svg(curve, title, unit, resumed)))


def _svg(curve: Curve, title: str, unit: str, resumed: Sequence[int]) -> Iterator[Markup]:
    x, y, xs, ys = _scales(curve)
    label = f"{title}{f' ({unit})' if unit else ''} by step. {_said(curve)}"
    yield Markup('<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, label)
    for tick in ys:
        yield Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y(tick), WIDTH - RIGHT)
        yield Markup('<text class="y" x="{}" y="{:.1f}">{}</text>').format(LEFT - 6, y(tick) + 4, tick_text(tick, ys))
    for tick in xs:
        yield Markup('<path class="tick" d="M{:.1f} {}v4"/>').format(x(tick), HEIGHT - BOTTOM)
        yield Markup('<text class="x" x="{:.1f}" y="{}">{}</text>').format(x(tick), HEIGHT - BOTTOM + 16, tick_text(tick, xs))
    yield Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT)
    yield Markup('<text class="x name" x="{}" y="{}">step</text>').format((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 4)
    for step in resumed:
        if curve.steps and curve.steps[0] <= step <= curve.steps[-1]:
            yield Markup('<path class="resumed" d="M{:.1f} {}V{}"><title>resumed from step {:,}</title></path>').format(
                x(step), TOP, HEIGHT - BOTTOM, step
            )
    yield from _marks(curve, x, y)
    yield from _hits(curve, x, unit)
    yield Markup("</svg>")


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def _scales(curve: Curve) -> tuple[_Scale, _Scale, list[float], list[float]]:
    drawn = curve.drawn or [0.0, 1.0]
    ys = ticks(min(drawn), max(drawn))
    first, last = (curve.steps[0], curve.steps[-1]) if curve.steps else (0, 1)
    if first == last:
        first, last = first - 1, last + 1
    xs = [t for t in ticks(first, last) if first <= t <= last and t == int(t)]
    low, high = min(ys[0], *drawn), max(ys[-1], *drawn)
    return _Scale(first, last, LEFT, WIDTH - RIGHT), _Scale(low, high, HEIGHT - BOTTOM, TOP), xs, ys


def _marks(curve: Curve, x: _Scale, y: _Scale) -> Iterator[Markup]:
    for run in _runs(curve):
        if curve.low:
            band = [(curve.steps[i], curve.high[i]) for i in run] + [(curve.steps[i], curve.low[i]) for i in reversed(run)]
            yield Markup('<path class="band" d="{}Z"/>').format(_path(band, x, y))
        yield Markup('<path class="line" d="{}"/>').format(_path([(curve.steps[i], curve.last[i]) for i in run], x, y))
        if len(curve.steps) <= MARKED or len(run) == 1:
            for i in run:
                yield Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(
                    x(curve.steps[i]), y(curve.last[i] or 0)
                )
    for step in curve.nonfinite[:HITS]:
        at = x(step)
        yield Markup('<path class="gap" d="M{:.1f} {}l6 6m0 -6l-6 6"><title>not finite at step {:,}</title></path>').format(
            at - 3, HEIGHT - BOTTOM - 7, step
        )


def _runs(curve: Curve) -> Iterator[list[int]]:
    """Indices of neighbouring buckets that have a value."""
    run: list[int] = []
    for i, value in enumerate(curve.last):
        if value is None:
            if run:
                yield run
            run = []
        else:
            run.append(i)
    if run:
        yield run


def _path(points: Sequence[tuple[int, float | None]], x: _Scale, y: _Scale) -> str:
    return "M" + "L".join(f"{x(step):.1f} {y(value):.1f}" for step, value in points if value is not None)


def _hits(curve: Curve, x: _Scale, unit: str) -> Iterator[Markup]:
    """Invisible columns that show a value under the pointer: the browser shows the title of an element."""
    count = len(curve.steps)
    every = max(1, math.ceil(count / HITS))
    width = (WIDTH - LEFT - RIGHT) / max(1, min(count, HITS))
    for i in sorted({*range(0, count, every), count - 1} if count else ()):
        value = curve.last[i]
        shown = "not finite" if value is None else cells.number("", value)
        yield Markup(
            '<rect class="hit" x="{:.1f}" y="{}" width="{:.1f}" height="{}"><title>step {:,}: {}</title></rect>'
        ).format(x(curve.steps[i]) - width / 2, TOP, width, HEIGHT - TOP - BOTTOM, curve.steps[i], shown)


def _said(curve: Curve) -> str:
    """The curve in words, for who does not see it."""
    found = [(s, v) for s, v in zip(curve.steps, curve.last, strict=True) if v is not None]
    if not found:
        return "No finite value."
    (first, begin), (last, end) = found[0], found[-1]
    if first == last:
        return f"{cells.number('', end)} at step {last:,}."
    return f"From {cells.number('', begin)} at step {first:,} to {cells.number('', end)} at step {last:,}."


# -- ticks --


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that enclose the range; a range of no width is widened."""
    if not high > low:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    rough = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_text(value: float, among: Sequence[float]) -> str:
    """A tick with as many decimals as tell the ticks apart."""
    step = abs(among[1] - among[0]) if len(among) > 1 else abs(value)
    largest = max(map(abs, among), default=0.0)
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if largest >= limit:
            scale = 1e3 if unit == "k" else limit
            return f"{value / scale:.{_decimals(step / scale)}f}{unit}" if value else "0"
    if largest and largest < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:,.{_decimals(step)}f}"


def _decimals(step: float) -> int:
    if step <= 0:
        return 0
    found = max(0, -math.floor(math.log10(step) + 1e-9))
    return found if math.isclose(round(step, found), step, rel_tol=1e-6) else found + 1
