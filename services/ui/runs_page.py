"""The Runs page: the list, the selected run with its stages, curves, report and log, and the new-run form."""

from __future__ import annotations

from typing import Any

import gradio as gr

from client.client import Client
from client.errors import ApiError, ClientError
from services.ui import new_run, run_detail, run_list
from services.ui.html import header as header_html
from services.ui.runs_view import NO_REPORT, View, look


def build(demo: gr.Blocks, api: Client, poll_s: float) -> None:
    """Add the page's components and event handlers to `demo`, whose `with` block is open."""
    view = gr.State(View())
    timer = gr.Timer(poll_s)
    header = _html(header_html(), "header")
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=360):
            runs = _html("", "run-table", js_on_load=run_list.ON_LOAD)
            on_start, chosen = _form(demo, api)
        with gr.Column(scale=9, min_width=480, visible=False, elem_id="run-detail") as detail:
            with gr.Row(equal_height=False):
                headline = _html("", "run-headline", scale=6)
                cancel = gr.Button("◼ Cancel run", variant="stop", size="sm", scale=0, min_width=130, elem_id="cancel-run")
            stages = _html("", "stage-table")
            with gr.Tabs(elem_id="run-tabs"):
                with gr.Tab("Curves", elem_id="tab-curves") as curves:
                    plot = gr.Plot(show_label=False, elem_id="loss-plot", container=False)
                with gr.Tab("Report", elem_id="tab-report"):
                    report = gr.Markdown(NO_REPORT, elem_id="report", container=True)
                with gr.Tab("Log", elem_id="tab-log"):
                    log = _html(run_detail.log_lines(()), "log")

    # Plotly cannot measure a hidden tab, so the plot is resized when its tab opens.
    curves.select(None, js="() => setTimeout(() => window.dispatchEvent(new Event('resize')), 100)")
    shown = [header, runs, headline, cancel, stages, plot, report, log, detail]

    def refresh(view: View) -> list[Any]:
        return look(api, view).updates()

    def opened(view: View, request: gr.Request) -> list[Any]:
        view.look_at(request.query_params.get("run"))
        return refresh(view)

    def chose(view: View, event: gr.EventData) -> list[Any]:
        view.look_at(str(event.run))
        return refresh(view)

    def cancelled(view: View) -> list[Any]:
        try:
            if view.run_id:
                api.cancel(view.run_id)
        except ApiError as err:
            gr.Info(err.detail or err.title) if err.status == 409 else gr.Warning(str(err))
        except ClientError as err:
            gr.Warning(str(err))
        return refresh(view)

    def started(view: View, run_id: str) -> list[Any]:
        view.look_at(run_id)
        return refresh(view)

    quiet: dict[str, Any] = {"inputs": view, "outputs": shown, "show_progress": "hidden", "api_visibility": "private"}
    demo.load(opened, **quiet)
    timer.tick(refresh, **quiet)
    runs.select(chose, **quiet)
    cancel.click(cancelled, **quiet)
    on_start(started, [view, chosen], shown, show_progress="hidden", api_visibility="private")


def _html(value: str, elem_id: str, **options: Any) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, **options)


def _form(demo: gr.Blocks, api: Client) -> tuple[Any, gr.State]:
    """The new-run form. Returns the event of a successful submission and a state that holds the id of the new run."""
    chosen = gr.State("")
    with gr.Accordion("New run", open=True, elem_id="new-run"):
        with gr.Row():
            recipe = gr.Dropdown(
                [new_run.QUICKEST], value=new_run.QUICKEST, label="Recipe", elem_id="new-recipe", min_width=120
            )
            name = gr.Textbox(label="Name", placeholder="optional", max_lines=1, elem_id="new-name", min_width=120)
        changes = gr.Textbox(
            label="Changes, one per line",
            placeholder="base.num_iterations = 20",
            lines=2,
            max_lines=8,
            elem_id="new-overrides",
        )
        with gr.Row():
            check = gr.Button("Check", size="md", elem_id="plan-run", min_width=100)
            go = gr.Button("▶ Start run", variant="primary", size="md", elem_id="start-run", min_width=100)
        planned = gr.Markdown("", elem_id="plan")

    def submit(recipe: str, name: str, changes: str) -> tuple[str, str, str]:
        run = new_run.submit(api, recipe, name, changes)
        gr.Info(f"Run {run.id} was submitted.", title="Started", duration=4)
        return run.id, "", ""

    demo.load(
        lambda: gr.update(choices=new_run.recipe_names(api)), None, recipe, show_progress="hidden", api_visibility="private"
    )
    check.click(lambda r, c: new_run.plan(api, r, c), [recipe, changes], planned, api_visibility="private")
    started = go.click(submit, [recipe, name, changes], [chosen, planned, name], api_visibility="private")
    return started.success, chosen
