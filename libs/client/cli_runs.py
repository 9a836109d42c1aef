"""The commands for runs: submit, plan, ps, show, watch, logs, report, recipes."""

from __future__ import annotations

import json
import tempfile
import tomllib
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markdown import Markdown
from rich.table import Table

from client.cli_local import DataOption, FirstOption, FromOption, SetOption, given, overrides_of, plan_here
from client.client import Client
from client.models import Run
from client.settings import discover
from client.text import RunTable, console, plan_summary, plan_table, runs_table, troubles
from client.watch import watch

RecipeArg = Annotated[
    str, typer.Argument(metavar="RECIPE", help="name of a shipped recipe (see `nanochat recipes`), or a .toml file")
]
RunArg = Annotated[
    str, typer.Argument(metavar="RUN", help="id of a run, r_… (see `nanochat ps`), or its name if only one has it")
]
Json = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]
PriorityOption = Annotated[int | None, typer.Option(min=-100, max=100, help="a greater priority goes first")]
MaxUsd = Annotated[float | None, typer.Option(metavar="USD", help="pause when this is spent")]
MaxHours = Annotated[float | None, typer.Option(metavar="HOURS", help="pause after this many hours of work")]
UsdPerHour = Annotated[float | None, typer.Option(metavar="USD", help="price of one GPU")]

out = console()


def register(app: typer.Typer) -> None:
    for command in (submit, plan, ps, show, watch_, logs, report, recipes):
        app.command(command.__name__.rstrip("_"))(command)


def submit(
    recipe: RecipeArg,
    set_: SetOption = None,
    data: DataOption = None,
    from_: FromOption = None,
    first: FirstOption = None,
    name: Annotated[str | None, typer.Option(help="name of the run")] = None,
    watch_it: Annotated[bool, typer.Option("--watch", "-w", help="show the run until it finishes")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="two submissions with the same key start one run")] = None,
    plan: Annotated[str | None, typer.Option(metavar="HASH", help="refuse if the run would differ from this plan")] = None,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    usd_per_hour: UsdPerHour = None,
) -> None:
    """Start a run."""
    what, overrides = recipe_of(recipe), overrides_of(set_, data, from_, first)
    with connect() as client:
        run = client.submit(
            what,
            overrides,
            name,
            idempotency_key,
            plan=plan,
            priority=priority,
            max_usd=max_usd,
            max_hours=max_hours,
            usd_per_hour=usd_per_hour,
        )
        typer.echo(run.id)
        if watch_it:
            _watch(client, run.id)


def plan(
    recipe: RecipeArg,
    set_: SetOption = None,
    data: DataOption = None,
    from_: FromOption = None,
    first: FirstOption = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="number of GPUs to plan for")] = None,
    gpu: Annotated[str | None, typer.Option(help="name of the GPU, such as H100")] = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GIB", help="memory of one GPU")] = None,
    peak_tflops: Annotated[float | None, typer.Option(metavar="TFLOPS", help="dense bf16 peak of one GPU")] = None,
    usd_per_hour: UsdPerHour = None,
    as_json: Json = False,
) -> None:
    """Show the length, memory use and cost of a run, without starting it.

    With any option about GPUs, no service is needed. Without one, the API plans for its own workers.
    """
    named = {
        "--gpus": gpus,
        "--gpu": gpu,
        "--gpu-memory": gpu_memory,
        "--peak-tflops": peak_tflops,
        "--usd-per-hour": usd_per_hour,
    }
    hardware = given(named)
    overrides = overrides_of(set_, data, from_, first)
    if hardware:
        answer = plan_here(recipe, overrides, hardware)
    else:
        what = recipe_of(recipe)
        with connect() as client:
            answer = client.plan(what, overrides)
    if as_json:
        typer.echo(answer.model_dump_json(indent=1))
        return
    out.print(plan_table(answer))
    for line in plan_summary(answer):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    for warning in answer.warnings:
        out.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    if not hardware:
        typer.echo(f"Submit this very plan: nanochat submit {recipe} --plan {answer.hash}")


def ps(
    status: Annotated[str | None, typer.Option(help="only runs with this status, such as RUNNING")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many runs, newest first")] = 20,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    with connect() as client:
        page = client.runs_page(status=status, limit=limit)
    if as_json:
        typer.echo(page.model_dump_json(indent=1))
    elif page.items:
        out.print(runs_table(page.items))
    else:
        typer.echo("No runs yet. Start one: nanochat submit tiny --watch")


def show(run_id: RunArg, as_json: Json = False) -> None:
    """Show a run and its stages."""
    with connect() as client:
        run = client.run(run_id)
        if as_json:
            typer.echo(run.model_dump_json(indent=1))
        else:
            out.print(RunTable(run, client.catalog()))


def watch_(run_id: RunArg) -> None:
    """Show a run live until it finishes. Exits with 0 only if it succeeded."""
    with connect() as client:
        _watch(client, run_id)


def logs(
    run_id: RunArg,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing until the run finishes")] = False,
    stage: Annotated[str | None, typer.Option(help="only this stage")] = None,
    attempt: Annotated[int | None, typer.Option(help="only this attempt", min=1)] = None,
) -> None:
    """Print the output of the stages of a run."""
    with connect() as client:
        if not client.logs(run_id, stage, attempt, 0).items:
            typer.echo(f"No output yet; stages print little. For progress and metrics: nanochat watch {run_id}", err=True)
        if follow:
            for line in client.follow_logs(run_id, stage, attempt):
                typer.echo(f"{line.stage}#{line.attempt} | {line.line}")
            return
        after = 0
        while True:
            page = client.logs(run_id, stage, attempt, after)
            for line in page.items:
                typer.echo(f"{line.stage}#{line.attempt} | {line.line}")
            if not page.items:
                return
            after = page.next_after


def report(
    run_id: RunArg,
    raw: Annotated[bool, typer.Option("--raw", help="print the Markdown source")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as data")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write the report as one HTML file")] = None,
    open_it: Annotated[bool, typer.Option("--open", help="show the HTML file in the browser")] = False,
) -> None:
    """Print the report card of a run, or write it as an HTML file to show to others."""
    with connect() as client:
        if html or open_it:
            _show_page(
                client.report_page(run_id), html or Path(tempfile.mkdtemp(prefix="nanochat-report-")) / "report.html", open_it
            )
        elif as_json:
            typer.echo(json.dumps(client.report_data(run_id), indent=1, ensure_ascii=False))
        elif raw or not out.is_terminal:
            typer.echo(client.report(run_id))
        else:
            out.print(Markdown(client.report(run_id)))


def _show_page(page: str, file: Path, open_it: bool) -> None:
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as err:
        raise typer.BadParameter(f"{file} cannot be written: {err.strerror}", param_hint="--html") from err
    typer.echo(file)
    if open_it and not webbrowser.open(file.resolve().as_uri()):
        typer.echo("There is no browser here: open the file in one.", err=True)


def recipes() -> None:
    """List the recipes that ship with the platform."""
    with connect() as client:
        table = Table("recipe", "description", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for recipe in client.recipes():
            table.add_row(recipe.name, recipe.description)
    out.print(table)


# -- arguments --


def connect() -> Client:
    settings = discover()
    return Client(settings.api_url, settings.require_key())


def recipe_of(text: str) -> str | dict[str, Any]:
    """The content of a .toml file, because the server may be on another machine; a name is returned unchanged."""
    if not text.endswith(".toml"):
        return text
    try:
        return tomllib.loads(Path(text).read_text(encoding="utf-8"))
    except OSError as err:
        raise typer.BadParameter(f"{text}: {err.strerror}", param_hint="RECIPE") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise typer.BadParameter(f"{text} is not valid TOML: {err}", param_hint="RECIPE") from err


# -- output --


def _watch(client: Client, run_id: str) -> None:
    try:
        status = watch(client, run_id, console=out)
    except KeyboardInterrupt:
        typer.echo(
            f"{run_id} is still running. Show it again: nanochat watch {run_id}. Cancel it: nanochat cancel {run_id}", err=True
        )
        raise typer.Exit(130) from None
    if status != "SUCCEEDED":
        _explain(client.run(run_id))
        raise typer.Exit(1)


def _explain(run: Run) -> None:
    typer.echo(f"{run.id} {run.status}", err=True)
    for line in troubles(run):
        typer.echo(line, err=True)
    typer.echo(f"For its output: nanochat logs {run.id}", err=True)
