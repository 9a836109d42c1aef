"""The files of a checkpoint: its manifest, checked against the ledger, and downloads that can be resumed."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from pydantic import BaseModel, Field

from controlplane import views
from nanochat.contract.contract import MANIFEST, Artifact, StageError, read_manifest
from services.api.auth import Caller
from services.api.database import Ledger
from services.api.fields import CheckpointId
from services.api.problems import ProblemError, responses

router = APIRouter(prefix="/v1/checkpoints/{checkpoint_id}/files", tags=["storage"])

ONE_RANGE = re.compile(r"bytes=(\d+)-(\d*)|bytes=-(\d+)")
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file", "content": BINARY},
    206: {"description": "The requested range of the file", "content": BINARY},
}
FileName = Annotated[
    str, PathParameter(pattern=r"^[A-Za-z0-9._/-]{1,200}$", description="Path of a file, as in the list of files.")
]


class FileView(BaseModel):
    """A file of a checkpoint."""

    path: str = Field(description="Its path in the checkpoint's directory.")
    bytes: int = Field(description="Its size in bytes.")
    sha256: str = Field(description="SHA-256 digest of its content, also the ETag of its download.")
    state: Literal["ok", "missing", "another size"] = Field(description="What is on the disk.")


class FileListView(BaseModel):
    """The files of a checkpoint. Its manifest is `manifest.json`."""

    items: list[FileView] = Field(description="The files that the manifest lists.")
    intact: bool = Field(description="Whether all of them are on the disk with the size that the manifest gives.")


@router.get("", responses=responses("checkpoint-not-found", "files-damaged", "invalid-request"))
def list_files(caller: Caller, ledger: Ledger, checkpoint_id: CheckpointId) -> FileListView:
    """List the files of a checkpoint. The manifest is checked against the digest that was recorded when it was published."""
    folder, entries = _manifest(ledger, checkpoint_id)
    items = [FileView(**_content(entry), state=_state(folder, entry)) for entry in entries]
    return FileListView(items=items, intact=all(item.state == "ok" for item in items))


@router.get(
    "/{file:path}",
    response_class=FileResponse,
    responses={
        **responses("checkpoint-not-found", "file-not-found", "files-damaged", "range-not-satisfiable", "invalid-request"),
        **DOWNLOAD,
    },
)
def download_file(
    request: Request, caller: Caller, ledger: Ledger, checkpoint_id: CheckpointId, file: FileName
) -> FileResponse:
    """Download one file, or with the header `Range` one part of it. With `If-Range` an interrupted download is resumed safely."""
    folder, entries = _manifest(ledger, checkpoint_id)
    entry = next((e for e in entries if e["path"] == file), None)
    if entry is None and file != MANIFEST:
        raise ProblemError("file-not-found", f"checkpoint {checkpoint_id} has no file {file}; list its files first")
    path = folder / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ProblemError("file-not-found", f"{file} is outside of the checkpoint")
    if entry is not None and _state(folder, entry) != "ok":
        raise ProblemError("files-damaged", f"{path} is missing or not as large as its manifest says")
    if entry is None:
        return FileResponse(path, media_type="application/json")
    tag = f'"{entry["sha256"]}"'
    if request.headers.get("if-range", tag) == tag:
        _check_range(request, entry["bytes"])
    digest = base64.b64encode(bytes.fromhex(entry["sha256"])).decode()
    return FileResponse(
        path, media_type="application/octet-stream", headers={"ETag": tag, "Repr-Digest": f"sha-256=:{digest}:"}
    )


def _manifest(ledger: Ledger, checkpoint_id: str) -> tuple[Path, list[dict[str, Any]]]:
    """The checkpoint's folder and the entries of its manifest. Raises NotFound and ProblemError."""
    with ledger() as session:
        found = views.checkpoint_view(session, checkpoint_id)
    try:
        entries: list[dict[str, Any]] = read_manifest(Artifact(path=found.path, sha256=found.sha256))["files"]
    except StageError as err:
        raise ProblemError(
            "files-damaged", f"{err}. It may have been deleted; the API and the workers must share NANOCHAT_HOME"
        ) from err
    return Path(found.path), entries


def _content(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: entry[key] for key in ("path", "bytes", "sha256")}


def _state(folder: Path, entry: dict[str, Any]) -> Literal["ok", "missing", "another size"]:
    path = folder / entry["path"]
    if not path.is_file():
        return "missing"
    return "ok" if path.stat().st_size == entry["bytes"] else "another size"


def _check_range(request: Request, size: int) -> None:
    """Refuse a range beyond the end. A header of another form is ignored, as RFC 9110 (section 14.2) allows."""
    header = request.headers.get("range")
    if header is None:
        return
    match = ONE_RANGE.fullmatch(header.strip())
    if match is None or (match[1] and match[2] and int(match[2]) < int(match[1])):
        request.scope["headers"] = [(name, value) for name, value in request.scope["headers"] if name != b"range"]
    elif int(match[1] or 0) >= size or match[3] == "0":
        raise ProblemError(
            "range-not-satisfiable",
            f"the file has {size} bytes, and {header} begins behind them",
            headers={"Content-Range": f"bytes */{size}"},
        )
