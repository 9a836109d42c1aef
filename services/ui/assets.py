"""The scripts and styles of the pages, read once at the start.

Their address has a digest of all of them, so browsers keep them for ever and never mix two versions.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path, PurePosixPath

from fastapi import APIRouter, Request, Response
from rjsmin import jsmin

STATIC = Path(__file__).with_name("static")
STYLE = "app.css"  # all of css/, in the order of the names
CHAT_STYLE = "chat.css"  # SHARED for elements in .nc, which is what is ours on Gradio's page, and all of css/chat/
SHARED = ("1-tokens", "2-base", "3-layout", "4-components")
CHARTS = "vendor/uplot.js"
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
_IMPORT = re.compile(r'(?:^|[;\s])(?:import|export)\s[^"\';]*?from\s*"(\.[^"]+)"|(?:^|[;\s])import\s*"(\.[^"]+)"', re.M)


@dataclass(frozen=True, slots=True)
class Asset:
    media_type: str
    body: bytes
    zipped: bytes


class Assets:
    def __init__(self) -> None:
        self.files = {name: _asset(name, body) for name, body in sorted(_read())}
        digest = hashlib.sha256()
        for name, asset in self.files.items():
            digest.update(name.encode() + b"\0" + asset.body + b"\0")
        self.version = digest.hexdigest()[:12]

    def url(self, name: str) -> str:
        """Raises KeyError if there is no such file."""
        self.files[name]
        return f"/assets/{self.version}/{name}"

    def imports(self, name: str) -> list[str]:
        """The script and all that it imports, so that the browser can ask for them at once."""
        found: dict[str, None] = {}
        waiting = [name]
        while waiting:
            script = waiting.pop()
            if script in found:
                continue
            found[script] = None
            text = self.files[script].body.decode()
            folder = PurePosixPath(script).parent
            waiting += [_joined(folder, a or b) for a, b in _IMPORT.findall(text)]
        return list(found)

    def router(self) -> APIRouter:
        routes = APIRouter()

        @routes.get("/assets/{version}/{name:path}", include_in_schema=False)
        async def asset(request: Request, version: str, name: str) -> Response:
            found = self.files.get(name)
            if found is None:
                return Response(f"no asset {name}\n", 404, media_type="text/plain")
            # A page of before an update asks for what is no longer there; it gets today's file, once.
            headers = _FOR_EVER if version == self.version else {"Cache-Control": "no-store"}
            if "gzip" in request.headers.get("accept-encoding", ""):
                return Response(found.zipped, headers={**headers, "Content-Encoding": "gzip"}, media_type=found.media_type)
            return Response(found.body, headers=headers, media_type=found.media_type)

        return routes


def _read() -> Iterator[tuple[str, bytes]]:
    styles = [path.read_bytes() for path in sorted((STATIC / "css").glob("*.css"))]
    yield STYLE, b"\n".join([*styles, _vendored("uPlot.min.css")])
    tokens, *shared = (STATIC / "css" / f"{name}.css" for name in SHARED)
    chat = [path.read_bytes() for path in sorted((STATIC / "css" / "chat").glob("*.css"))]
    yield CHAT_STYLE, b"\n".join([tokens.read_bytes(), b".nc {", *(path.read_bytes() for path in shared), b"}", *chat])
    charts = _vendored("uPlot.iife.js")
    licence = charts[: charts.index(b"*/") + 2]
    yield (
        CHARTS,
        licence + b"\n" + jsmin(charts) + b"\nexport default uPlot;\n",
    )  # 24 kB compressed; 33 with all comments and spaces
    for path in STATIC.rglob("*"):
        if path.is_file() and path.suffix != ".css":
            yield path.relative_to(STATIC).as_posix(), path.read_bytes()


def _vendored(name: str) -> bytes:
    """A file of uPlot (MIT), which the wheel uplot-python carries. The package itself is never imported: it loads IPython."""
    return Path(str(metadata.distribution("uplot-python").locate_file(f"uplot/static/{name}"))).read_bytes()


def _asset(name: str, body: bytes) -> Asset:
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Asset(media_type, body, gzip.compress(body, 9, mtime=0))


def _joined(folder: PurePosixPath, reference: str) -> str:
    parts: list[str] = []
    for part in (folder / reference).parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
