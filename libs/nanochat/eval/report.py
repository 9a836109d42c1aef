"""The report card of a run, as one page of Markdown: the model, its training data and time, the hardware, and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nanochat.config.recipe import Recipe
from nanochat.eval import markdown as md
from nanochat.eval.chat import BASELINES
from nanochat.eval.core_bundle import ROWS
from nanochat.planning import gpus
from nanochat.planning.graph import STAGES, evaluation_of
from nanochat.tasks import catalog

Figures = Mapping[str, Any]

TITLES = {stage.name: stage.title for stage in STAGES if stage.kind != "report"}
TASKS = {task.name: task.title for task in catalog.TASKS if task.judge}
# Columns of the summary: the stage that trained the model, and the one that evaluated it.
COLUMNS = {
    trained.trains.upper(): (trained.name, evaluated.name)
    for trained in STAGES
    if trained.trains and (evaluated := evaluation_of(trained))
}
OPTIONAL = {stage.trains.upper() for stage in STAGES if stage.trains and stage.enabled_by}  # columns that a run may lack
ELSEWHERE = ("samples", "machine")  # results that are not shown among the figures of a stage


@dataclass(frozen=True, slots=True)
class StageResults:
    """The content of a stage's `results.json`, and when the stage ran (Unix seconds; None if unknown)."""

    name: str
    results: Figures
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def seconds(self) -> float | None:
        return self.finished_at - self.started_at if self.started_at and self.finished_at else None


def render(run: str, recipe: Figures, stages: Sequence[StageResults], machine: Figures, failed: Sequence[str] = ()) -> str:
    """Return the whole report. `recipe` is the recipe of the run as JSON. `failed` names evaluations that have no results.

    `machine` describes the machine that writes the report. It is shown only if `base_eval` did not record its own machine.
    """
    by_name = {stage.name: stage for stage in stages}
    ordered = [by_name[d.name] for d in STAGES if d.name in by_name]
    parts = [
        f"# Report on {md.escape(run)}",
        _header(recipe, by_name, machine),
        "## Summary",
        _summary(by_name),
        _notes(by_name, failed),
        "## Time",
        _times(ordered, by_name),
        *[part for stage in ordered for part in _section(stage)],
        "## Recipe",
        _settings(recipe),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary(by_name: Mapping[str, StageResults]) -> dict[str, dict[str, float]]:
    """Return the figures of the summary: row name -> column -> value. Figures that were not measured are absent."""
    rows: dict[str, dict[str, float | None]] = {"CORE": {}, "Bits per byte": {}, "Validation loss": {}}
    evaluated = {column: _results(by_name, names[1]) for column, names in COLUMNS.items()}
    trained = {column: _results(by_name, names[0]) for column, names in COLUMNS.items()}
    core = evaluated["BASE"].get("core") or {}
    rows["CORE (estimate)" if core.get("estimate") else "CORE"] = {"BASE": core.get("core")}
    base_bpb = (evaluated["BASE"].get("bpb") or {}).get("val")
    rows["Bits per byte"] = {column: figures.get("val_bpb") for column, figures in trained.items()}
    rows["Bits per byte"]["BASE"] = base_bpb if base_bpb is not None else rows["Bits per byte"]["BASE"]
    rows["Validation loss"] = {column: figures.get("val_loss") for column, figures in trained.items()}
    for task, title in TASKS.items():
        rows[title] = {c: (figures.get("tasks") or {}).get(task, {}).get("accuracy") for c, figures in evaluated.items()}
    rows["ChatCORE"] = {column: figures.get("chatcore") for column, figures in evaluated.items()}
    kept = {name: {c: v for c, v in row.items() if isinstance(v, int | float)} for name, row in rows.items()}
    return {name: row for name, row in kept.items() if row}


def total_seconds(stages: Sequence[StageResults]) -> float | None:
    """Seconds from the start of the first stage to the end of the last one; None when no stage recorded its times."""
    starts = [s.started_at for s in stages if s.started_at]
    ends = [s.finished_at for s in stages if s.finished_at]
    return max(ends) - min(starts) if starts and ends else None


# -- header and summary --


def _header(recipe: Figures, by_name: Mapping[str, StageResults], machine: Figures) -> str:
    base = _results(by_name, "base_train")
    trained_on = _results(by_name, "base_eval").get("machine") or machine
    model, tokenizer = recipe.get("model", {}), recipe.get("tokenizer", {})
    described = f": {recipe['description']}" if recipe.get("description") else ""
    ended = [s.finished_at for s in by_name.values() if s.finished_at]
    rows = {
        "Recipe": f"{recipe.get('name', md.NONE)}{described}",
        "Model": f"depth {model.get('depth', '?')}, {md.number('', base.get('params'))} parameters, "
        f"context {md.number('', model.get('seq_len'))}, vocabulary {md.number('', tokenizer.get('vocab_size'))}",
        "Trained on": f"{base.get('world_size', 1)} x {base.get('device', 'unknown device')}",
        "Machine": ", ".join(str(trained_on[k]) for k in ("system", "cpu", "gpus", "memory") if trained_on.get(k))
        + f", {trained_on.get('cores', '?')} cores",
        "Versions": ", ".join(f"{k} {trained_on[k]}" for k in ("nanochat", "python", "torch", "cuda") if trained_on.get(k)),
        "Finished": datetime.fromtimestamp(max(ended), UTC).strftime("%Y-%m-%d %H:%M UTC") if ended else md.NONE,
    }
    return md.table(("", ""), [(key, md.escape(value)) for key, value in rows.items()], text_columns=2)


def _summary(by_name: Mapping[str, StageResults]) -> str:
    rows = summary(by_name)
    columns = [c for c in COLUMNS if c not in OPTIONAL or COLUMNS[c][0] in by_name]
    cells = [(name, *(_figure(row.get(c)) for c in columns)) for name, row in rows.items() if name != "ChatCORE"]
    cells += [("ChatCORE", *(_figure(rows["ChatCORE"].get(c)) for c in columns))] if "ChatCORE" in rows else []
    times = [by_name[COLUMNS[c][0]].seconds if COLUMNS[c][0] in by_name else None for c in columns]
    cells.append(("Training wall-clock", *(md.number("seconds", t) for t in times)))
    return md.table(("Metric", *columns), cells)


def _notes(by_name: Mapping[str, StageResults], failed: Sequence[str]) -> str:
    """Say which figures the summary lacks, and why."""
    notes = []
    core = _results(by_name, "base_eval").get("core") or {}
    if core.get("core") is None:
        lacking = [*core.get("missing", ROWS), *core.get("partial", [])]
        names = "all of them" if len(lacking) == len(ROWS) else ", ".join(lacking)
        notes.append(f"No CORE: it is the mean over {len(ROWS)} tasks, and {len(lacking)} of them were incomplete ({names}).")
    elif core.get("estimate"):
        notes.append("CORE is an estimate from a sample of each task's examples.")
    evaluated = [
        by_name[chat].results.get("tasks") or {} for _, chat in COLUMNS.values() if chat in by_name and chat != "base_eval"
    ]
    lacking = [TASKS[t] for t in BASELINES if any(t not in tasks for tasks in evaluated)]
    if lacking:
        notes.append(f"No ChatCORE: it is the mean over {len(BASELINES)} tasks, and these did not run: {', '.join(lacking)}.")
    sampled = [
        f"{TASKS.get(t, t)} {f['n']:,} of {f['rows']:,}"
        for t, f in (evaluated[0] if evaluated else {}).items()
        if f.get("n", 0) < f.get("rows", 0)
    ]
    if sampled:
        notes.append(f"Only the first problems of these chat tasks were judged: {', '.join(sampled)}.")
    if failed:
        notes.append(f"Failed, so their figures are missing: {', '.join(TITLES[name] for name in failed).lower()}.")
    absent = [title for name, title in TITLES.items() if name not in by_name and name not in failed]
    if absent:
        notes.append(f"Not part of this run: {', '.join(absent).lower()}.")
    return "\n".join(f"- {note}" for note in notes)


def _times(ordered: Sequence[StageResults], by_name: Mapping[str, StageResults]) -> str:
    rows = [(TITLES.get(s.name, s.name), md.number("seconds", s.seconds)) for s in ordered]
    total = total_seconds(ordered)
    rows.append(("**From the first start to the last end**", md.number("seconds", total)))
    base = _results(by_name, "base_train")
    card = gpus.find(str(base.get("device", "")))
    text = md.table(("Stage", "Wall-clock"), rows)
    if card and card.usd_per_hour and total:
        price = card.usd_per_hour * int(base.get("world_size", 1))
        text += f"\n\nAt ${price:.2f} an hour for {base.get('world_size', 1)} x {card.name}: ${price * total / 3600:.2f}."
    return text


def _settings(recipe: Figures) -> str:
    """List the settings in which this run differs from the d20 speedrun, whose values are the defaults."""
    usual, mine = dict(_flat(Recipe().model_dump(mode="json"))), dict(_flat(recipe))
    changed = [key for key in mine if mine[key] != usual.get(key) and key not in ("name", "description")]
    if not changed:
        return "All settings are those of the d20 speedrun."
    rows = [(f"`{key}`", md.escape(_shown(mine[key])), md.escape(_shown(usual.get(key)))) for key in changed]
    return md.table(("Setting", "This run", "d20 speedrun"), rows, text_columns=3)


def _flat(table: Figures, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: Any) -> str:
    """A setting on one line. A mixture is shown by its tasks and sizes."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return ", ".join(" ".join(str(v) for k, v in use.items() if v is not None and v not in (1, "train")) for use in value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return md.NONE if value is None else str(value)


# -- one section per stage --


def _section(stage: StageResults) -> list[str]:
    """Scalars come first as one table, then records as tables, then samples."""
    parts = [f"## {TITLES.get(stage.name, stage.name)}"]
    results = {k: v for k, v in stage.results.items() if k not in ELSEWHERE}
    plain: dict[str, Any] = {"wall_clock_seconds": stage.seconds} if stage.seconds is not None else {}
    tables: list[str] = []
    for key, value in results.items():
        if key == "core" and isinstance(value, Mapping):
            plain |= _core_facts(value)
            tables += _named_records("Task", value.get("tasks", {}))
        elif isinstance(value, Mapping) and value and all(isinstance(v, Mapping) for v in value.values()):
            tables += _named_records(key, value)
        elif isinstance(value, Sequence) and value and all(isinstance(v, Mapping) for v in value):
            tables.append(md.records(value))
        else:
            plain[key] = value
    samples = stage.results.get("samples", [])
    return [*parts, md.facts(plain), *tables, *(["### Samples", _samples(samples)] if samples else [])]


def _core_facts(core: Figures) -> Figures:
    label = "CORE (estimate)" if core.get("estimate") and core.get("core") is not None else "CORE"
    lists = {f"CORE tasks {key}": core[key] for key in ("missing", "partial") if core.get(key)}
    return {label: core.get("core"), **lists}


def _named_records(title: str, records: Mapping[str, Figures]) -> list[str]:
    rows = [{title: TASKS.get(name, name) if title == "tasks" else name, **figures} for name, figures in records.items()]
    return [md.records(rows)] if rows else []


def _samples(samples: Sequence[Figures]) -> str:
    """One row for each prompt with the model's text."""
    if "completion" not in samples[0]:
        rows = [(md.excerpt(s["prompt"]), md.excerpt(s["text"])) for s in samples]
        return md.table(("Prompt", "Continuation"), rows, text_columns=2)
    told = [(str(TASKS.get(s["task"], s["task"])), md.excerpt(s["prompt"]), md.excerpt(s["completion"])) for s in samples]
    rows3 = [(*cells, md.number("", s["right"])) for cells, s in zip(told, samples, strict=True)]
    return md.table(("Task", "Question", "Answer", "Right"), rows3, text_columns=4)


def _results(by_name: Mapping[str, StageResults], name: str) -> Figures:
    return by_name[name].results if name in by_name else {}


def _figure(value: float | None) -> str:
    return md.number("", float(value) if value is not None else None)
