"""Middleware in front of everything: which hosts, which origins, who is signed in, and the headers of every answer.

- A page of another site cannot reach the dashboard through a name of its own that points here (DNS rebinding): only addresses,
  localhost and the names in `hosts` are served.
- A page of another site cannot make a visitor's browser change anything: the cookie is SameSite=Strict, and requests that a browser
  says come from elsewhere are refused.
- Without a sign-in, only the sign-in page, the assets and the probes are there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.ui.access.sessions import Sessions

PROBES = ("/health", "/ready", "/metrics")  # asked for under whatever name a monitor knows
OPEN = ("/signin", "/assets/", "/favicon.ico", *PROBES)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
CHAT = "/chat"
# Gradio's pages have inline scripts and styles, and its templates are compiled in the browser.
INLINE = "'self' 'unsafe-inline'"
_ALWAYS = "default-src 'self'; img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'; object-src 'none'"
POLICY = f"{_ALWAYS}; script-src 'self'; style-src 'self'"
CHAT_POLICY = f"{_ALWAYS}; script-src {INLINE} 'unsafe-eval'; style-src {INLINE}; font-src 'self' data:"
# The report is one file with its style in it and no script.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    def __init__(self, app: ASGIApp, sessions: Sessions, hosts: Collection[str]):
        self._app, self._sessions, self._hosts = app, sessions, {"localhost", *hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        connection = HTTPConnection(scope)
        policy = CHAT_POLICY if _under(scope["path"], CHAT) else POLICY

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "Content-Security-Policy": policy}.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(connection)
        if refusal is None:
            return await self._app(scope, receive, with_headers)
        return await refusal(scope, receive, with_headers)

    def _refusal(self, connection: HTTPConnection) -> Response | None:
        host, path = connection.headers.get("host", ""), connection.scope["path"]
        if not self._is_ours(host) and path not in PROBES:
            return PlainTextResponse(
                f"The dashboard is not known as {_name(host)!r}. Set NANOCHAT_UI_HOSTS={_name(host)} to serve it under that name.\n",
                421,
            )
        if connection.scope.get("method", "GET") not in SAFE and _from_elsewhere(connection, host):
            return PlainTextResponse("A page of another site sent this request, so it is refused.\n", 403)
        visitor = self._sessions.visitor(connection)
        connection.scope.setdefault("state", {})["visitor"] = visitor
        if visitor is not None or any(_under(path, prefix) for prefix in OPEN):
            return None
        if wants_page(connection):
            wanted = path + (f"?{connection.url.query}" if connection.url.query else "")
            return RedirectResponse(f"/signin?next={quote(wanted, safe='')}", 303)
        return JSONResponse({"title": "Not signed in", "status": 401, "detail": "sign in at /signin"}, 401)

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return False
        return True  # rebinding needs a name


def visitor_secret(request: HTTPConnection) -> str:
    """The API key of the signed-in visitor, behind the guard."""
    secret: str = request.state.visitor.secret
    return secret


def wants_page(request: HTTPConnection) -> bool:
    """Whether somebody looks at the answer in a browser."""
    return request.scope.get("method", "GET") == "GET" and "text/html" in request.headers.get("accept", "")


def _under(path: str, prefix: str) -> bool:
    return path == prefix.rstrip("/") or path.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _name(host: str) -> str:
    """The host without its port, as it is compared: lower case."""
    end = host.rfind("]")  # of an IPv6 address
    colon = host.find(":", end + 1)
    return (host if colon < 0 else host[:colon]).lower()


def _from_elsewhere(connection: HTTPConnection, host: str) -> bool:
    """Browsers send at least one of the two headers with every request that changes something; other programs have no cookie to steal."""
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return True
    return origin is not None and urlsplit(origin).netloc.lower() != host.lower()
