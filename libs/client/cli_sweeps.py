"""The commands for sweeps: sweep submit, plan, ablate, list, show, plot, pause, resume, cancel, edit, delete."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from client import cli_base, complete, svg, sweep_options
from client.cli_base import Json, Yes, confirm, connect, emit, say, tell, warn
from client.cli_base import show as show_sheet
from client.cli_group import Group
from client.cli_options import (
    DataOption,
    GpuOption,
    GpusOption,
    PriorityOption,
    SetOption,
    UsdPerHour,
    overrides_of,
    recipe_of,
    something_to_change,
)
from client.printable import clean
from client.sweep_models import Sweep, SweepCurves
from client.sweep_text import changes, plan_lines, plan_table, runs_table, sweeps_table

SKIP = 0.04  # of the width of a plot: with the first steep fall in view the rest would be a flat line

WhatArg = Annotated[
    str,
    typer.Argument(metavar="RECIPE|FILE", help="name of a shipped recipe, or a .toml file with a recipe or with a whole sweep"),
]
SweepArg = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="id of a sweep, s_… (see `nanochat sweep list`), or its name", autocompletion=complete.sweeps
    ),
]
GridOption = Annotated[
    list[str] | None, typer.Option("--grid", metavar="FIELD=V,V…", help="every combination of these values, as model.depth=4,8")
]
RandomOption = Annotated[
    list[str] | None,
    typer.Option("--random", metavar="FIELD=MIN:MAX[:log][:int]", help="draw from a range, or from values: FIELD=V,V…"),
]
SamplesOption = Annotated[int | None, typer.Option(min=1, help="number of random runs")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="seed of the draws (default 0)")]
DepthsOption = Annotated[
    str | None, typer.Option(metavar="N,N…", help="a ladder of depths, each trained as long as the ratio says")
]
AblateOption = Annotated[
    list[str] | None, typer.Option("--ablate", metavar="SWITCH", help="flip this switch in a run of its own; all: every one")
]
NameOption = Annotated[str | None, typer.Option(help="name of the sweep")]
ParallelOption = Annotated[int | None, typer.Option(min=1, help="how many runs may go on at once")]
LabelOption = Annotated[list[str] | None, typer.Option(help="label of the runs; repeat it for several")]
UsdOption = Annotated[float | None, typer.Option(metavar="USD", help="budget of each run in dollars")]
HoursOption = Annotated[float | None, typer.Option(metavar="HOURS", help="budget of each run in hours of work")]
StopOption = Annotated[
    str | None,
    typer.Option(metavar="METRIC@POINT", help="stop runs that fall behind: val_bpb@0.25, val_bpb@500steps, val_bpb@1e9tokens"),
]
KeepOption = Annotated[float | None, typer.Option(help="fraction of the runs that goes on at each comparison (default 0.5)")]
MetricOption = Annotated[str | None, typer.Option(help="metric to show, such as val_bpb or loss")]
StageOption = Annotated[str | None, typer.Option(help="stage that reports the metric")]

sweep = typer.Typer(cls=Group, help="Start sweeps of runs, and compare what they reach.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    cli_base.register(sweep, "Commands", submit, plan, ablate, list_, show, plot, pause, resume, cancel, edit, delete)
    app.add_typer(sweep, name="sweep", rich_help_panel=cli_base.RUNS)


def submit(
    what: WhatArg,
    grid: GridOption = None,
    random: RandomOption = None,
    samples: SamplesOption = None,
    seed: SeedOption = None,
    depths: DepthsOption = None,
    ablate: AblateOption = None,
    set_: SetOption = None,
    data: DataOption = None,
    name: NameOption = None,
    max_parallel: ParallelOption = None,
    label: LabelOption = None,
    priority: PriorityOption = None,
    max_usd_per_run: UsdOption = None,
    max_hours_per_run: HoursOption = None,
    usd_per_hour: UsdPerHour = None,
    stop_early: StopOption = None,
    keep: KeepOption = None,
    as_json: Json = False,
) -> None:
    """Start a sweep and print its id."""
    options = {
        **sweep_options.space(grid, random, samples, seed, depths, ablate),
        "overrides": overrides_of(set_, data),
        "name": name,
        "max_parallel": max_parallel,
        "labels": label,
        "priority": priority,
        "max_usd_per_run": max_usd_per_run,
        "max_hours_per_run": max_hours_per_run,
        "usd_per_hour": usd_per_hour,
        "stop_early": sweep_options.stop_early(stop_early, keep),
    }
    body = _body(what, options)
    _start(body, as_json)


def plan(
    what: WhatArg,
    grid: GridOption = None,
    random: RandomOption = None,
    samples: SamplesOption = None,
    seed: SeedOption = None,
    depths: DepthsOption = None,
    ablate: AblateOption = None,
    set_: SetOption = None,
    data: DataOption = None,
    stop_early: StopOption = None,
    keep: KeepOption = None,
    gpus: GpusOption = None,
    gpu: GpuOption = None,
    usd_per_hour: UsdPerHour = None,
    as_json: Json = False,
) -> None:
    """Show the runs of a sweep with their length and cost, without starting it."""
    options = {
        **sweep_options.space(grid, random, samples, seed, depths, ablate),
        "overrides": overrides_of(set_, data),
        "stop_early": sweep_options.stop_early(stop_early, keep),
        "gpus": gpus,
        "gpu": gpu,
        "usd_per_hour": usd_per_hour,
    }
    _plan(_body(what, options), as_json=as_json)


def ablate(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="name of a shipped recipe, or a .toml file")],
    switches: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SWITCH]…", help="fields to flip, such as model.smear; all that differ if none"),
    ] = None,
    set_: SetOption = None,
    data: DataOption = None,
    name: NameOption = None,
    max_parallel: ParallelOption = None,
    stop_early: StopOption = None,
    keep: KeepOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show the runs and their cost, and start nothing")] = False,
    as_json: Json = False,
) -> None:
    """Start a recipe, and the recipe with each one of its switches flipped: `nanochat sweep ablate modern`."""
    options = {
        "ablate": switches or ["all"],
        "overrides": overrides_of(set_, data),
        "name": name,
        "max_parallel": max_parallel,
        "stop_early": sweep_options.stop_early(stop_early, keep),
    }
    body = _body(recipe, options)
    if dry_run:
        _plan(body, as_json=as_json)
        return
    _start(body, as_json)


def list_(
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many sweeps, newest first")] = 20,
    archived: Annotated[bool, typer.Option("--archived", help="the archived ones, instead of all others")] = False,
    as_json: Json = False,
) -> None:
    """List sweeps, newest first."""
    with connect() as client:
        page = client.sweeps.page(limit, archived=archived)
    if as_json:
        emit(page)
    elif page.items:
        show_sheet(sweeps_table(page.items))
    else:
        warn("No sweeps yet. Start one: nanochat sweep submit tiny --depths 2,4")


def show(
    sweep_id: SweepArg,
    metric: MetricOption = None,
    stage: StageOption = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV instead of a table")] = False,
    as_json: Json = False,
) -> None:
    """Show a sweep and what its runs have reached and used."""
    with connect() as client:
        if as_csv:
            typer.echo(client.sweeps.csv(sweep_id, metric, stage), nl=False)
            return
        found = client.sweeps.get(sweep_id, metric, stage)
    if as_json:
        emit(found)
        return
    counts = ", ".join(f"{n} {status}" for status, n in sorted(found.runs.items()))
    early = f", {found.stopped_early} stopped early" if found.stopped_early else ""
    say(clean(f"{found.id} {found.name}  {found.status}  {counts}{early}"))
    show_sheet(runs_table(found))


def plot(
    sweep_id: SweepArg,
    file: Annotated[Path, typer.Option("--out", metavar="FILE", help="picture to write (.svg), or the points (.csv)")],
    metric: MetricOption = None,
    stage: StageOption = None,
) -> None:
    """Draw the time to quality: the metric of each run against GPU hours and against tokens."""
    if file.suffix not in (".svg", ".csv"):
        raise typer.BadParameter(f"{file} must end in .svg or .csv", param_hint="--out")
    with connect() as client:
        if file.suffix == ".csv":
            text = client.sweeps.curves_csv(sweep_id, metric, stage)
        else:
            text = _picture(client.sweeps.get(sweep_id), client.sweeps.curves(sweep_id, metric, stage))
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as err:
        raise typer.BadParameter(f"{file}: {err.strerror}", param_hint="--out") from err


def pause(sweep_id: SweepArg, as_json: Json = False) -> None:
    """Pause every run of a sweep."""
    with connect() as client:
        _tell(client.sweeps.pause(sweep_id), as_json)


def resume(sweep_id: SweepArg, as_json: Json = False) -> None:
    """Resume every paused run of a sweep."""
    with connect() as client:
        _tell(client.sweeps.resume(sweep_id), as_json)


def cancel(
    sweep_id: SweepArg,
    now: Annotated[bool, typer.Option("--now", help="kill running stages; they save nothing")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel every unfinished run of a sweep for good."""
    confirm(f"Cancel every unfinished run of the sweep {sweep_id}? They cannot be resumed.", yes)
    with connect() as client:
        _tell(client.sweeps.cancel(sweep_id, now=now), as_json)


def edit(
    sweep_id: SweepArg,
    name: NameOption = None,
    max_parallel: ParallelOption = None,
    archive: Annotated[
        bool | None, typer.Option("--archive/--unarchive", help="leave a finished sweep and its runs out of lists, or not")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change the name of a sweep or how many runs go on at once, or archive it with its runs."""
    something_to_change(name=name, max_parallel=max_parallel, archive=archive)
    with connect() as client:
        _tell(client.sweeps.edit(sweep_id, name=name, max_parallel=max_parallel, archived=archive), as_json)


def delete(sweep_id: SweepArg, yes: Yes = False) -> None:
    """Delete a finished sweep with all its runs and their checkpoints for good."""
    confirm(f"Delete the sweep {sweep_id} with all its runs and their checkpoints for good?", yes)
    with connect() as client:
        client.sweeps.delete(sweep_id)
    say(f"{sweep_id} deleted")


def _body(what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request: that of a sweep's file, or a recipe, with the options that are given."""
    given = {key: value for key, value in options.items() if value is not None}
    recipe = recipe_of(what)
    if isinstance(recipe, str) or not sweep_options.KINDS & recipe.keys():
        return {"recipe": recipe, **given}
    file = dict(recipe)
    overrides = {**file.get("overrides", {}), **given.pop("overrides", {})}
    inner = file.get("recipe")
    if isinstance(inner, str) and inner.endswith(".toml"):  # beside the sweep's file
        file["recipe"] = recipe_of(str(Path(what).parent / inner))
    return {**file, **given, "overrides": overrides}


def _plan(body: Mapping[str, Any], *, as_json: bool) -> None:
    with connect() as client:
        found = client.sweeps.plan(body)
    if as_json:
        emit(found)
        return
    show_sheet(plan_table(found))
    say(*plan_lines(found))


def _picture(found: Sweep, curves: SweepCurves) -> str:
    def lines(axis: str) -> list[svg.Line]:
        return [
            svg.Line(
                f"{series.no} {changes(series.overrides)}",
                [(getattr(p, axis), p.last) for p in series.points if p.last is not None and getattr(p, axis) is not None],
            )
            for series in curves.series
        ]

    title = f"{found.name}: {curves.label}"
    return svg.page(
        [
            svg.Panel(title, "GPU hours of the stage", lines("gpu_hours"), SKIP),
            svg.Panel(curves.stage, "tokens", lines("tokens"), SKIP),
        ]
    )


def _start(body: Mapping[str, Any], as_json: bool) -> None:
    with connect() as client:
        made = client.sweeps.submit(body)
    tell(made, made.id, as_json)


def _tell(found: Sweep, as_json: bool) -> None:
    left = f"  {found.pending} runs follow within seconds" if found.pending else ""
    tell(found, f"{found.id} {found.status}{left}", as_json)
