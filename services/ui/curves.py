"""The curves of a run: one column for each training stage, its loss in the upper row, its validation in the lower row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from client.models import Catalog, MetricPoint, MetricSeries

PLOTS = ("training", "validation")  # the two rows of curves, top first
COLORS = ("#6366f1", "#f59e0b")  # one for each row; they differ in hue and in lightness
AXIS_CHARS = 18  # of 12 px in a line of an axis title; the lower plot is 130 px high
GREY = "#8792a8"  # readable on a light and on a dark page


def keys(catalog: Catalog) -> list[str]:
    """The metrics that the curves may show."""
    return [metric.key for metric in catalog.metrics if metric.plot in PLOTS]


def figure(series: Sequence[MetricSeries], catalog: Catalog) -> go.Figure | None:
    """The plot, or None while there is nothing to draw.

    A point stands for a bucket of steps. A band spans the smallest and largest value of each bucket, so no spike is lost.
    """
    by_stage: dict[str, dict[str, MetricSeries]] = {}
    for s in series:
        if s.points:
            by_stage.setdefault(s.stage, {})[s.key] = s
    stages = [stage for stage in catalog.stages if stage.trains and stage.name in by_stage]
    if not stages:
        return None
    fig = make_subplots(
        rows=2,
        cols=len(stages),
        shared_xaxes=True,
        row_heights=[0.62, 0.38],
        vertical_spacing=0.07,
        horizontal_spacing=0.07,
        column_titles=[stage.short for stage in stages],
    )
    named = [""] * len(PLOTS)  # the label of each row's axis so far: a column repeats it only where it differs
    for col, stage in enumerate(stages, start=1):
        reported = by_stage[stage.name]
        for row, plot in enumerate(PLOTS, start=1):
            shown = next((m for m in catalog.metrics if m.plot == plot and m.key in reported), None)
            if shown:
                _draw(fig, reported[shown.key], COLORS[row - 1], row, col, markers=row == 2)
                fig.update_yaxes(title_text=None if shown.label == named[row - 1] else _axis(shown.label), row=row, col=col)
                named[row - 1] = shown.label
        fig.update_xaxes(title_text="step", row=2, col=col)
    return _styled(fig)


def _axis(label: str) -> str:
    """The label in lines that fit the height of the lower plot."""
    return "<br>".join(textwrap.wrap(label, AXIS_CHARS))


def _draw(fig: go.Figure, series: MetricSeries, color: str, row: int, col: int, *, markers: bool) -> None:
    points = series.points
    x = [p.step for p in points]
    where: dict[str, Any] = {"row": row, "col": col}
    if any(p.min != p.max for p in points):
        band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "connectgaps": False}
        fig.add_trace(go.Scatter(x=x, y=[p.max for p in points], **band), **where)
        fig.add_trace(go.Scatter(x=x, y=[p.min for p in points], fill="tonexty", fillcolor=_faint(color), **band), **where)
    fig.add_trace(
        go.Scatter(
            x=x,
            y=[p.last for p in points],
            mode="lines+markers" if markers else "lines",
            name=f"{series.stage} {series.key}",
            line={"color": color, "width": 2},
            marker={"size": 6},
            connectgaps=False,
            hovertemplate="step %{x}<br>%{y:.4g}<extra></extra>",
        ),
        **where,
    )
    _mark_nonfinite(fig, points, where)


def _mark_nonfinite(fig: go.Figure, points: Sequence[MetricPoint], where: dict[str, Any]) -> None:
    """Mark the steps whose value is NaN or infinite with a red x, since a line cannot show them."""
    finite = [p.last for p in points if p.last is not None]
    steps = [p.step for p in points if p.last is None or p.nonfinite]
    if steps:
        height = max(finite, default=0.0)
        marker = {"symbol": "x", "size": 9, "color": "#dc2626"}
        text = "not finite at step %{x}<extra></extra>"
        fig.add_trace(go.Scatter(x=steps, y=[height] * len(steps), mode="markers", marker=marker, hovertemplate=text), **where)


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def _styled(fig: go.Figure) -> go.Figure:
    fig.update_layout(
        height=430,
        margin={"l": 76, "r": 16, "t": 34, "b": 44},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 12},
        hovermode="x",
        uirevision="keep",  # a zoomed view survives the next poll
    )
    fig.update_xaxes(gridcolor="rgba(135,146,168,0.16)", zeroline=False, rangemode="tozero")
    fig.update_yaxes(gridcolor="rgba(135,146,168,0.16)", zeroline=False)
    return fig
