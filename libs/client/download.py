"""Downloads of checkpoints that can be interrupted: a later call continues where an earlier one stopped."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel

from client.answers import items, part
from client.errors import ClientError
from client.transport import Transport

READ_TIMEOUT_S = 60.0
MANIFEST = "manifest.json"  # of nanochat.contract; the client may not import nanochat


class Entry(BaseModel):
    """A file of a checkpoint."""

    path: str
    bytes: int
    sha256: str


def download(http: Transport, checkpoint_id: str, folder: Path) -> Path:
    """Download all files of a checkpoint into `folder` and check their digests; its manifest is written last.

    Raises ApiError, httpx.TransportError when the connection breaks, and ClientError when a digest differs.
    """
    address = f"/v1/checkpoints/{part(checkpoint_id)}/files"
    for entry in items(http.get(address), Entry):
        path = folder / entry.path
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ClientError(f"{entry.path} is outside of the folder")
        if not (path.is_file() and path.stat().st_size == entry.bytes and _sha256(path) == entry.sha256):
            _fetch(http, f"{address}/{entry.path}", path, entry.sha256)
    _fetch(http, f"{address}/{MANIFEST}", folder / MANIFEST, None)
    return folder


def _fetch(http: Transport, address: str, path: Path, sha256: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if sha256 and part.is_file() else 0
    headers = {"Range": f"bytes={have}-", "If-Range": f'"{sha256}"'} if have else {}
    with (
        http.stream("GET", address, read_timeout_s=READ_TIMEOUT_S, headers=headers) as answer,
        part.open("ab" if answer.status_code == 206 else "wb") as file,
    ):
        for data in answer.iter_bytes():
            file.write(data)
    if sha256 is not None and _sha256(part) != sha256:
        part.unlink()
        raise ClientError(f"{path.name} arrived damaged and was deleted; download it once more")
    part.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
