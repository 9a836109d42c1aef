"""The static pages: one HTML shell, and a table of the addresses with the script that fills each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException

from services.ui.access.guard import wants_page
from services.ui.access.sessions import Visitor
from services.ui.assets import CHAT_STYLE, STYLE, Assets

START = "js/start.js"


@dataclass(frozen=True, slots=True)
class Page:
    """`script` is js/pages/<script>.js. `section` is the entry of the navigation that the page belongs to."""

    path: str
    title: str
    script: str
    section: str


PAGES = (
    Page("/signin", "Sign in", "signin", ""),
    Page("/", "Runs", "runs", "Runs"),
    Page("/new", "New run", "new", "Runs"),
    Page("/runs/{run_id}", "Run", "run", "Runs"),
    Page("/compare", "Compare", "compare", "Compare"),
    Page("/leaderboard", "Leaderboard", "leaderboard", "Leaderboard"),
    Page("/sweeps", "Sweeps", "sweeps", "Sweeps"),
    Page("/sweeps/{sweep_id}", "Sweep", "sweep", "Sweeps"),
    Page("/cluster", "Cluster", "cluster", "Cluster"),
    Page("/keys", "Keys", "keys", ""),
    Page("/tokenizer", "Tokenizer", "tokenizer", "Tokenizer"),
)
MISSING = Page("", "Not found", "missing", "")  # at every address that is none
NAVIGATION = (
    ("Runs", "/"),
    ("Compare", "/compare"),
    ("Leaderboard", "/leaderboard"),
    ("Sweeps", "/sweeps"),
    ("Cluster", "/cluster"),
    ("Chat", "/chat"),
    ("Tokenizer", "/tokenizer"),
)

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def router(assets: Assets) -> APIRouter:
    routes = APIRouter()
    for page in PAGES:
        routes.add_api_route(page.path, _shown(page, assets), methods=["GET"], include_in_schema=False)

    @routes.get("/runs", include_in_schema=False)
    async def runs(request: Request) -> Response:
        """The list is the first page. People who shorten the address of a run look for it here."""
        return RedirectResponse(str(request.url.replace(scheme="", netloc="", path="/")), 303)

    return routes


def show_missing(app: FastAPI, assets: Assets) -> None:
    """Answer a browser that asks `app` for a page that is not there with one that says so. Programs get the JSON."""
    show = _shown(MISSING, assets, 404)

    async def missing(request: Request, err: Exception) -> Response:
        assert isinstance(err, HTTPException)
        return await (show(request) if wants_page(request) else http_exception_handler(request, err))

    app.add_exception_handler(404, missing)


def _shown(page: Page, assets: Assets, status: int = 200) -> Callable[[Request], Awaitable[Response]]:
    script = f"js/pages/{page.script}.js"
    scripts = [assets.url(name) for name in dict.fromkeys([*assets.imports(START), *assets.imports(script)])]

    async def show(request: Request) -> Response:
        visitor: Visitor | None = request.state.visitor
        if page.script == "signin" and visitor is not None:
            return RedirectResponse(inside(request.query_params.get("next")), 303)
        return HTMLResponse(
            shell(assets, page.title, page.section, visitor, scripts, assets.url(script)),
            status,
            headers={"Cache-Control": "no-store"},
        )

    return show


def shell(assets: Assets, title: str, section: str, visitor: Visitor | None, scripts: list[str], script: str) -> str:
    return _templates.get_template("shell.html").render(
        title=title,
        section=section,
        visitor=visitor,
        navigation=NAVIGATION,
        style=assets.url(STYLE),
        theme=assets.url("js/theme.js"),
        start=assets.url(START),
        scripts=scripts,
        script=script,
    )


def chat_head(assets: Assets) -> str:
    """What every page has in its head, for the page that Gradio makes."""
    script, theme = assets.url("js/chat/app.js"), assets.url("js/theme.js")
    return _templates.get_template("chat_head.html").render(style=assets.url(CHAT_STYLE), script=script, theme=theme)


def top(section: str, visitor: Visitor | None) -> str:
    """The header of every page: navigation and the menu of the account."""
    return _templates.get_template("top.html").render(section=section, visitor=visitor, navigation=NAVIGATION)


def inside(address: str | None) -> str:
    """The address if it is one of this site, else that of the first page: a link must not lead away through the sign-in."""
    parts = urlsplit(address or "")
    good = address and not parts.scheme and not parts.netloc and address.startswith("/") and "\\" not in address
    return address if good and address and not address.startswith("//") else "/"
