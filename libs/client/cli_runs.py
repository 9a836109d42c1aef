"""The commands for runs: submit, plan, ps, show, watch, logs, events, report, recipes."""

from __future__ import annotations

import shlex
import tempfile
import webbrowser
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from client import cli_base, complete
from client.cli_base import Code, Json, RunArg, connect, emit, emit_line, out, require_stage, say, say_whole, show, tell, warn
from client.cli_local import plan_here
from client.cli_options import (
    DataOption,
    FirstOption,
    FromOption,
    GpuOption,
    GpusOption,
    MaxHours,
    MaxUsd,
    PriorityOption,
    RecipeArg,
    SetOption,
    StageOption,
    UsdPerHour,
    overrides_of,
    recipe_of,
)
from client.client import Client
from client.event_text import QUIET, event_line
from client.models import Event, LogLine, Run
from client.printable import clean, visible
from client.processes import given
from client.sheet import Column, Sheet
from client.text import RunTable, facts, plan_summary, plan_table, runs_table, troubles
from client.watch import looks_at, watch, watch_list

PAGE = 5000  # log lines of a request, the most that there may be


def register(app: typer.Typer) -> None:
    cli_base.register(app, cli_base.RUNS, submit, plan, ps, show_, watch_, logs, events, report, recipes)


def submit(
    recipe: RecipeArg,
    set_: SetOption = None,
    data: DataOption = None,
    from_: FromOption = None,
    first: FirstOption = None,
    name: Annotated[str | None, typer.Option(help="name of the run")] = None,
    watch_it: Annotated[bool, typer.Option("--watch", "-w", "--follow", "-f", help="show the run until it finishes")] = False,
    idempotency_key: Annotated[str | None, typer.Option(help="two submissions with the same key start one run")] = None,
    plan: Annotated[str | None, typer.Option(metavar="HASH", help="refuse if the run would differ from this plan")] = None,
    priority: PriorityOption = None,
    max_usd: MaxUsd = None,
    max_hours: MaxHours = None,
    usd_per_hour: UsdPerHour = None,
    as_json: Json = False,
) -> None:
    """Start a run and print its id."""
    what, overrides = recipe_of(recipe), overrides_of(set_, data, from_, first)
    with connect() as client:
        if out.is_terminal and not as_json:
            expected = client.plan(what, overrides, usd_per_hour=usd_per_hour)
            warn(*plan_summary(expected), *(f"warning: {warning}" for warning in expected.warnings))
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
        tell(run, run.id, as_json)
        if watch_it:
            _watch(client, run.id)
        elif out.is_terminal and not as_json:
            warn(f"See what it does: nanochat watch {run.id}")


def plan(
    recipe: RecipeArg,
    set_: SetOption = None,
    data: DataOption = None,
    from_: FromOption = None,
    first: FirstOption = None,
    gpus: GpusOption = None,
    gpu: GpuOption = None,
    gpu_memory: Annotated[float | None, typer.Option(metavar="GIB", help="memory of one GPU")] = None,
    peak_tflops: Annotated[float | None, typer.Option(metavar="TFLOPS", help="dense bf16 peak of one GPU")] = None,
    usd_per_hour: UsdPerHour = None,
    as_json: Json = False,
) -> None:
    """Show the length, memory use and cost of a run, without starting it.

    With any option about GPUs but their price, no service is needed. Without one, the API plans for its own workers.
    """
    hardware = given({"--gpus": gpus, "--gpu": gpu, "--gpu-memory": gpu_memory, "--peak-tflops": peak_tflops})
    price = given({"--usd-per-hour": usd_per_hour})
    overrides = overrides_of(set_, data, from_, first)
    if hardware:
        answer = plan_here(recipe, overrides, [*hardware, *price])
    else:
        what = recipe_of(recipe)
        with connect() as client:
            answer = client.plan(what, overrides, usd_per_hour=usd_per_hour)
    if as_json:
        emit(answer)
        return
    show(plan_table(answer))
    say(*plan_summary(answer), *(f"warning: {warning}" for warning in answer.warnings))
    if not hardware:
        settings = [part for setting in set_ or [] for part in ("--set", setting)]
        rest = given({"--data": data, "--from": from_, "--first": first, "--context": cli_base.context()})
        again = ["nanochat", "submit", recipe, *settings, *rest, *price, "--plan", answer.hash]
        say_whole(f"Submit this very plan: {clean(shlex.join(again))}")


def ps(
    status: Annotated[str | None, typer.Option(help="only runs with this status, such as RUNNING")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="how many runs, newest first")] = 20,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="print ids alone")] = False,
    watch_them: Annotated[
        bool, typer.Option("--watch", "-w", help="show the list live, until Ctrl-C; on a terminal only")
    ] = False,
    as_json: Json = False,
) -> None:
    """List runs, newest first."""
    if watch_them:
        if not out.is_terminal or as_json or quiet:
            raise typer.BadParameter(
                "is for a terminal; a program asks again, or reads `nanochat watch RUN --json`", param_hint="--watch"
            )
        with connect(tries=1) as client:
            watch_list(client, out, status=status, limit=limit)
    with connect() as client:
        page = client.runs_page(status=status, limit=limit)
    if as_json:
        emit(page)
    elif quiet:
        say(*(run.id for run in page.items))
    elif page.items:
        show(runs_table(page.items))
    else:
        warn("No such runs." if status else "No runs yet. Start one: nanochat submit tiny --watch")


def show_(run_id: RunArg, as_json: Json = False) -> None:
    """Show a run and its stages."""
    with connect() as client:
        run = client.run(run_id)
        if as_json:
            emit(run)
            return
        table = RunTable(run, client.catalog())
    if out.is_terminal:
        out.print(table)
    else:
        say(clean(f"{run.id} {run.name} {run.status} {run.detail}").rstrip())
        show(table.sheet())
        say(*troubles(run))
    say(*(clean(line) for line in facts(run)))


def watch_(
    run_id: RunArg, as_json: Annotated[bool, typer.Option("--json", help="print the run as JSON, a line per change")] = False
) -> None:
    """Show a run live until it finishes. Ends with 0 only if it succeeded."""
    with connect(tries=1) as client:
        if as_json:
            raise typer.Exit(_watch_json(client, run_id))
        _watch(client, run_id)


def logs(
    run_id: RunArg,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="keep printing until the run finishes")] = False,
    stage: StageOption = None,
    attempt: Annotated[int | None, typer.Option(help="only this attempt", min=1)] = None,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", help="begin with the last N lines", metavar="N", min=1, max=5000)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON, a line each")] = False,
) -> None:
    """Print the output of the stages of a run. If they have printed nothing, its events."""
    with connect() as client:
        lines = client.logs(run_id, stage, attempt, limit=tail or PAGE, tail=tail is not None).items
        if not lines:
            require_stage(client, run_id, stage)
        if not lines and not follow:
            warn(f"The stages have printed nothing; these are the run's {'newest ' if tail else ''}events.")
            if not _events(client, run_id, stage, as_json, newest=tail, attempt=attempt):
                warn("There are none of that stage or attempt.")
            return
        if not lines:
            warn(f"No output yet; stages print little. For progress and metrics: nanochat watch {run_id}")
        after = 0
        while lines:
            for line in lines:
                _line(line, as_json)
            after = lines[-1].id
            lines = client.logs(run_id, stage, attempt, after, PAGE).items
        if follow:
            for line in client.follow_logs(run_id, stage, attempt, after):
                _line(line, as_json)


def events(
    run_id: RunArg,
    kind: Annotated[
        list[str] | None,
        typer.Option(help="only events of this kind, such as run_status; repeat it", autocompletion=complete.event_kinds),
    ] = None,
    as_json: Json = False,
) -> None:
    """List what has happened in a run: changes of status, checkpoints, evaluations, warnings."""
    with connect() as client:
        if kind:
            _require_kinds(client, kind)
        if not _events(client, run_id, None, as_json, kind):
            warn("The run has no events of that kind." if kind else "The run has no events yet.")


def _require_kinds(client: Client, kinds: list[str]) -> None:
    """Raises typer.BadParameter for a kind that no run has, which the API answers as one of which nothing has happened."""
    known = client.catalog().event_kinds
    if known and (wrong := [kind for kind in kinds if kind not in known]):
        raise typer.BadParameter(f"there is no kind {', '.join(wrong)}; there are {', '.join(known)}", param_hint="--kind")


def _events(
    client: Client,
    run_id: str,
    stage: str | None,
    as_json: bool,
    kinds: list[str] | None = None,
    newest: int | None = None,
    attempt: int | None = None,
) -> bool:
    """Print events. False if there are none."""
    told = False
    chosen = (
        event
        for event in _every(client, run_id, kinds)
        if stage in (None, event.stage) and attempt in (None, event.attempt) and (kinds or event.kind not in QUIET)
    )
    for event in chosen if newest is None else deque(chosen, newest):
        told = True
        if as_json:
            emit_line(event)
        else:
            say(event_line(event))
    return told


def _every(client: Client, run_id: str, kinds: list[str] | None) -> Iterator[Event]:
    after = 0
    while page := client.events(run_id, after, kinds).items:
        yield from page
        after = page[-1].id


def _line(line: LogLine, as_json: bool) -> None:
    if as_json:
        emit_line(line)
    else:
        typer.echo(f"{line.stage}#{line.attempt} | {visible(line.line) if out.is_terminal else line.line}")


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
            emit(client.report_data(run_id))
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


def recipes(as_json: Json = False) -> None:
    """List the recipes that ship with the platform."""
    with connect() as client:
        items = client.recipes()
    if as_json:
        emit(items)
        return
    sheet = Sheet("recipe", Column("description", wrap=True))
    for recipe in items:
        sheet.add(recipe.name, recipe.description)
    show(sheet)


# -- output --


def _watch(client: Client, run_id: str) -> None:
    try:
        status = watch(client, run_id, console=out)
    except KeyboardInterrupt:
        warn(f"{run_id} is still running.", f"Show it again: nanochat watch {run_id}", f"Cancel it: nanochat cancel {run_id}")
        raise typer.Exit(Code.INTERRUPTED) from None
    if status != "SUCCEEDED":
        _explain(client.run(run_id))
        raise typer.Exit(Code.FAILED)


def _watch_json(client: Client, run_id: str) -> Code:
    last: Run | None = None
    for look in looks_at(client, run_id):
        if look.seen is not None and look.seen.run != last:
            last = look.seen.run
            emit_line(last)
    return Code.OK if last is not None and last.status == "SUCCEEDED" else Code.FAILED


def _explain(run: Run) -> None:
    warn(f"{run.id} {run.status}", *troubles(run), f"For its output: nanochat logs {run.id}")
