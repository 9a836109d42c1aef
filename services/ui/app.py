"""The dashboard as one FastAPI application: static pages over the two REST APIs, the chat in Gradio, and the probes."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator

import gradio as gr
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.routing import Mount

from client.errors import ApiError, ClientError
from services.http_metrics import RequestMetrics, TimeRequests
from services.metrics import gauge
from services.ui import pages
from services.ui.access import signin
from services.ui.access.guard import CHAT, REPORT_POLICY, Guard, visitor_secret
from services.ui.access.sessions import Sessions
from services.ui.assets import Assets
from services.ui.chat import page as chat_page
from services.ui.chat.theme import theme
from services.ui.platform import Platform, Platforms
from services.ui.proxy import Proxy

# Gradio by default runs one event of a kind at a time, for all visitors together.
CONCURRENCY = 32
QUEUE = 256


def build(platforms: Platforms, assets: Assets, poll_s: float) -> gr.Blocks:
    demo: gr.Blocks
    with gr.Blocks(title="Chat · nanochat", analytics_enabled=False, fill_width=True) as demo:

        def platform_of(request: gr.Request) -> Platform:
            assert request.request is not None
            return platforms.of(visitor_secret(request.request))

        chat_page.build(demo, platform_of, assets.url, poll_s)
    demo.queue(max_size=QUEUE, default_concurrency_limit=CONCURRENCY)
    return demo


class _Doors(Collector):
    def __init__(self, platform: Platform):
        self._platform = platform

    def describe(self) -> list[Metric]:
        return []  # so that registering it asks nobody

    def collect(self) -> Iterator[Metric]:
        samples = [((name,), up) for name, up in _doors(self._platform).items()]
        yield gauge("service_up", "1 while the service behind the dashboard answers", *samples, labels=("service",))


def _doors(platform: Platform) -> dict[str, bool]:
    return {"api": platform.api.is_ready(), "inference": platform.inference.is_alive()}


def create_app(platforms: Platforms, sessions: Sessions, hosts: Collection[str] = (), poll_s: float = 2.0) -> FastAPI:
    proxy, assets = Proxy(platforms.api_url, platforms.inference_url, sessions), Assets()
    app = FastAPI(title="nanochat ui", openapi_url=None, lifespan=proxy.lifespan)
    metrics = RequestMetrics()
    metrics.registry.register(_Doors(platforms.nobody))
    app.add_middleware(Guard, sessions=sessions, hosts=hosts)
    app.add_middleware(TimeRequests, metrics=metrics)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Succeeds while this process runs."""
        return {"status": "ok"}

    @app.get("/ready")
    def ready() -> dict[str, str]:
        """Succeeds once the pages can be shown. They are shown, and say so, while one of the two APIs is down."""
        doors = {name: "ok" if up else "unreachable" for name, up in _doors(platforms.nobody).items()}
        return {"status": "ready" if set(doors.values()) == {"ok"} else "degraded", **doors}

    @app.get("/report/{run_id}", response_class=HTMLResponse)
    def show_report(run_id: str, request: Request) -> Response:
        """The report card of a run as a page of its own, to keep or to show to others. It runs no script."""
        try:
            page = platforms.of(visitor_secret(request)).api.report_page(run_id)
            return HTMLResponse(page, headers={"Content-Security-Policy": REPORT_POLICY})
        except ApiError as err:
            if err.status == 404:
                raise HTTPException(404, str(err)) from None
            return PlainTextResponse(str(err), err.status)
        except ClientError as err:
            return PlainTextResponse(str(err), 502)

    @app.get("/metrics", response_class=PlainTextResponse)
    def show_metrics() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    for router in (signin.router(sessions, platforms.api_url), assets.router(), pages.router(assets), proxy.router()):
        app.include_router(router)
    with warnings.catch_warnings():
        # Gradio warns that server-side rendering is off. That is intended.
        warnings.filterwarnings("ignore", message="SSR mode")
        mounted: FastAPI = gr.mount_gradio_app(
            app,
            build(platforms, assets, poll_s),
            CHAT,
            theme=theme(),
            head=pages.chat_head(assets),
            footer_links=[],
            run_history=False,  # keeps conversations out of the browser's storage
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
        )
    within = [route.app for route in mounted.routes if isinstance(route, Mount)]
    for one in [mounted, *(app for app in within if isinstance(app, FastAPI))]:
        pages.show_missing(one, assets)
    return mounted
