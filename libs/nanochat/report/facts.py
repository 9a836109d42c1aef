"""What the Markdown and the page say of the run as a whole. Each escapes it for its own language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nanochat.planning.graph import STAGES
from nanochat.report import cells
from nanochat.report.card import Cost, Report
from nanochat.report.summary import CHATCORE_MEAN, COLUMNS, CORE, CORE_ESTIMATE, TEXT_BPB


@dataclass(frozen=True, slots=True)
class Ours:
    """The figures of this run that published ones are compared with; None where one was not measured."""

    params: str
    core: float | None
    core_error: float | None
    is_estimate: bool
    bpb: float | None
    chatcore: float | None


def ours(report: Report) -> Ours:
    rows = {row.name: row for row in report.summary}

    def value(name: str, column: str) -> float | None:
        return rows[name].values.get(column) if name in rows else None

    name = CORE if CORE in rows else CORE_ESTIMATE
    return Ours(
        params=cells.short(trained(report, "params").get("params")),
        core=value(name, "BASE"),
        core_error=rows[name].errors.get("BASE") if name in rows else None,
        is_estimate=CORE_ESTIMATE in rows,
        bpb=value(TEXT_BPB, "BASE"),
        chatcore=value(CHATCORE_MEAN, "SFT"),
    )


def trained(report: Report, key: str) -> Mapping[str, Any]:
    """The results of the first training stage that recorded this figure: pretraining, unless the run starts from a model."""
    return next((results for d in STAGES if d.trains and (results := report.results(d.name)).get(key) is not None), {})


def columns(report: Report) -> list[str]:
    """The columns of the summary: the models that the run trains."""
    states = {stage.name: stage.state for stage in report.stages}
    return [c for c in COLUMNS if states.get(COLUMNS[c][0]) not in ("left out", None)]


def system(report: Report) -> list[tuple[str, str]]:
    """The system: recipe, model, hardware, versions and the amount of code."""
    on, machine = trained(report, "device"), report.machine
    model, tokenizer = report.recipe.get("model") or {}, report.recipe.get("tokenizer") or {}
    described = f": {report.recipe['description']}" if report.recipe.get("description") else ""
    hardware = f"{on.get('world_size', 1)} x {on['device']}" if on.get("device") else cells.NONE
    code = report.code
    pinned = f", {code.dependencies} pinned packages" if code.dependencies else ""
    size = f"{code.characters:,} characters, {code.lines:,} lines, {code.files} files, about {code.tokens:,} tokens"
    versions = {"nanochat": code.version, **machine}
    parts = [str(machine[k]) for k in ("system", "cpu", "gpus", "memory") if machine.get(k)]
    parts += [f"{machine['cores']} cores"] if machine.get("cores") else []
    return [
        ("Run", report.run),
        ("Recipe", f"{report.recipe.get('name', cells.NONE)}{described}"),
        (
            "Model",
            f"depth {model.get('depth', '?')}, {cells.number('', trained(report, 'params').get('params'))} parameters, "
            f"context {cells.number('', model.get('seq_len'))}, vocabulary {cells.number('', tokenizer.get('vocab_size'))}",
        ),
        ("Trained on", hardware),
        ("Machine", ", ".join(parts) or cells.NONE),
        ("Versions", ", ".join(f"{k} {versions[k]}" for k in ("nanochat", "python", "torch", "cuda") if versions.get(k))),
        ("Code", f"{size}{pinned} ({code.of})"),
        ("Started", moment(min((s.started_at for s in report.stages if s.started_at), default=None))),
        ("Finished", moment(max((s.finished_at for s in report.stages if s.finished_at), default=None))),
    ]


def moment(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC") if at else cells.NONE


def price(cost: Cost) -> str:
    return f"At ${cost.usd_per_hour:,.2f} an hour for {cost.gpus} x {cost.gpu}: ${cost.usd:,.2f}."


def training_times(report: Report) -> dict[str, str]:
    """The wall-clock time of the training behind each column of the summary."""
    stages = {column: report.stage(names[0]) for column, names in COLUMNS.items()}
    return {column: cells.number("seconds", stage.seconds if stage else None) for column, stage in stages.items()}
