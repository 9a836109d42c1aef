"""The curves of a run: one column for each training stage, its loss in the upper row, its validation in the lower row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from client.models import MetricPoint, MetricSeries

KEYS = ("loss", "val_bpb", "val_loss", "reward", "pass_at_1")
TITLES = {"base_train": "Pretraining", "mid_train": "Midtraining", "sft": "SFT", "rl": "RL"}
# each row: metric keys in order of preference, with the title of the axis
ROWS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("loss", "loss (nats per token)"), ("reward", "reward")),
    (("val_bpb", "validation (bits per byte)"), ("val_loss", "validation loss (nats)"), ("pass_at_1", "pass@1")),
)
COLORS = ("#6366f1", "#f59e0b")  # one for each row; they differ in hue and in lightness
GREY = "#8792a8"  # readable on a light and on a dark page


def figure(series: Sequence[MetricSeries]) -> go.Figure | None:
    """The plot, or None while there is nothing to draw.

    A point stands for a bucket of steps. A band spans the smallest and largest value of each bucket, so no spike is lost.
    """
    by_stage: dict[str, dict[str, MetricSeries]] = {}
    for s in series:
        if s.points:
            by_stage.setdefault(s.stage, {})[s.key] = s
    stages = [name for name in by_stage if name in TITLES]
    if not stages:
        return None
    stages.sort(key=list(TITLES).index)
    fig = make_subplots(
        rows=2,
        cols=len(stages),
        shared_xaxes=True,
        row_heights=[0.62, 0.38],
        vertical_spacing=0.07,
        horizontal_spacing=0.07,
        column_titles=[TITLES[s] for s in stages],
    )
    for col, stage in enumerate(stages, start=1):
        for row, choices in enumerate(ROWS, start=1):
            found = next(((key, label) for key, label in choices if key in by_stage[stage]), None)
            if found:
                key, label = found
                _draw(fig, by_stage[stage][key], COLORS[row - 1], row, col, markers=row == 2)
                fig.update_yaxes(title_text=label if col == 1 else None, row=row, col=col)
        fig.update_xaxes(title_text="step", row=2, col=col)
    return _styled(fig)


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
    steps = [p.step for p in points if p.last is None]
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
        margin={"l": 60, "r": 16, "t": 34, "b": 44},
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
