"""The dashboard as one FastAPI application: the Runs page at `/`, the Chat page at `/chat`, `/health` and `/ready` for probes."""

from __future__ import annotations

import warnings

import gradio as gr
from fastapi import FastAPI

from services.ui import chat_page, runs_page
from services.ui.platform import Platform
from services.ui.theme import CSS, theme

# Gradio by default runs one event of a kind at a time, for all visitors together.
CONCURRENCY = 32
QUEUE = 256


def build(platform: Platform, poll_s: float) -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks(title="nanochat", analytics_enabled=False, fill_width=True) as demo:
        _navbar()
        runs_page.build(demo, platform.api, poll_s)
    with demo.route("Chat", "/chat"):
        _navbar()
        chat_page.build(demo, platform, poll_s)
    demo.queue(max_size=QUEUE, default_concurrency_limit=CONCURRENCY)
    return demo


def _navbar() -> None:
    gr.components.Navbar(main_page_name="Runs", elem_id="navbar")


def create_app(platform: Platform, poll_s: float = 2.0) -> FastAPI:
    app = FastAPI(title="nanochat ui", openapi_url=None)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Succeeds while this process runs."""
        return {"status": "ok"}

    @app.get("/ready")
    def ready() -> dict[str, str]:
        """Succeeds once the pages can be shown. They are shown, and say so, while one of the two APIs is down."""
        api = "ok" if platform.api.is_ready() else "unreachable"
        inference = "ok" if platform.inference.is_alive() else "unreachable"
        return {"status": "ready" if api == inference == "ok" else "degraded", "api": api, "inference": inference}

    with warnings.catch_warnings():
        # Gradio warns that server-side rendering is off. That is intended.
        warnings.filterwarnings("ignore", message="SSR mode")
        mounted: FastAPI = gr.mount_gradio_app(
            app,
            build(platform, poll_s),
            "/",
            theme=theme(),
            css_paths=CSS,
            footer_links=[],
            run_history=False,  # keeps conversations out of the browser's storage
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
        )
    return mounted
