"""The control API's answers about checkpoints: models, what may be deleted, what was made from what. Unknown fields are ignored, so that an old client works with a newer server."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel


class Located(BaseModel):
    """An artifact's directory and the digest of its manifest."""

    path: str
    sha256: str


class Model(BaseModel):
    """A promoted checkpoint: the inference service can serve it."""

    id: str
    run_id: str
    run_name: str
    stage: str
    step: int
    created_at: datetime
    model: Located
    tokenizer: Located


class Checkpoint(BaseModel):
    id: str
    stage: str
    attempt: int
    step: int
    path: str
    sha256: str
    bytes: int
    final: bool
    val_bpb: float | None = None
    created_at: datetime
    promoted_at: datetime | None = None
    pinned_at: datetime | None = None


class GarbageItem(BaseModel):
    """A checkpoint that nothing needs. `delete_after` is None until it has been marked."""

    id: str
    run_id: str
    run_name: str
    stage: str
    step: int
    path: str
    bytes: int
    delete_after: datetime | None = None


class Garbage(BaseModel):
    items: list[GarbageItem]
    bytes: int


class LineageNode(BaseModel):
    """A stage, or an artifact, a checkpoint or a score that a stage made."""

    id: str
    kind: str
    label: str
    status: str | None = None
    sha256: str | None = None
    path: str | None = None


class LineageEdge(BaseModel):
    """`target` was made by or from `source`."""

    source: str
    target: str


class Lineage(BaseModel):
    nodes: list[LineageNode]
    edges: list[LineageEdge]
    mermaid: str
