"""Bars in the cells of a table: figures with their standard errors and the level of chance, and the time line of the stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from nanochat.report.plots import tick_text, ticks

HEIGHT = 16
WIDTH = 100  # of the scale, in per cent of the cell


@dataclass(frozen=True, slots=True)
class Scale:
    """The axis that all bars of a column share. `marks` are its round numbers, with their place in per cent."""

    low: float
    high: float
    marks: tuple[tuple[float, str], ...]

    @classmethod
    def over(cls, values: Sequence[float], *, at_least: tuple[float, float]) -> Scale:
        rounds = ticks(min([*values, at_least[0]]), max([*values, at_least[1]]), count=3)
        low, high = rounds[0], rounds[-1]
        places = [WIDTH * (tick - low) / (high - low) for tick in rounds]
        return cls(low, high, tuple((place, tick_text(t, rounds)) for place, t in zip(places, rounds, strict=True)))

    def at(self, value: float) -> float:
        return WIDTH * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def bar(scale: Scale, value: float, error: float | None = None, chance: float | None = None, series: str = "sft") -> Markup:
    """A bar from zero to the value, a whisker of one standard error to each side, and a line at the level of chance."""
    zero, end = scale.at(0.0), scale.at(value)
    parts = _bar(min(zero, end), abs(end - zero), series)
    if chance is not None:
        parts.append(Markup('<path class="chance" d="M{:.2f} 0V{}"/>').format(scale.at(chance), HEIGHT))
    if error is not None:
        low, high = scale.at(value - error), scale.at(value + error)
        path = f"M{low:.2f} 8H{high:.2f}M{low:.2f} 5V11M{high:.2f} 5V11"
        parts.append(Markup('<path class="halo" d="{0}"/><path class="whisker" d="{0}"/>').format(path))
    return Markup("").join([*parts, Markup("</svg>")])


def span(start: float, end: float, total: float) -> Markup:
    """A stretch of the time line, which is `total` long."""
    left = WIDTH * start / total if total > 0 else 0
    width = WIDTH * (end - start) / total if total > 0 else WIDTH
    return Markup("").join([*_bar(left, width, "sft"), Markup("</svg>")])


def _bar(left: float, width: float, series: str) -> list[Markup]:
    """The beginning of an SVG: the track and the bar on it."""
    return [
        Markup('<svg class="bar" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">').format(WIDTH, HEIGHT),
        Markup('<path class="track" d="M0 {}H{}"/>').format(HEIGHT - 1, WIDTH),
        Markup('<rect class="{}" x="{:.2f}" y="3" width="{:.2f}" height="{}"/>').format(
            f"of-{series}", left, max(width, 0.4), HEIGHT - 6
        ),
    ]
