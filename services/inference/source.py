"""Sources of models: the promoted checkpoints of the control API, or one directory. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.checkpoint_models import Model as Promoted
from client.client import Client
from nanochat.contract.contract import Artifact, artifact_at
from services.inference.settings import Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """An available model. Its artifacts are identified by path and digest; nothing is guessed."""

    id: str
    stage: str
    step: int
    created_at: datetime
    model: Artifact
    tokenizer: Artifact
    run_id: str | None = None
    run_name: str | None = None


# Returns the available models, newest first. Called on a thread; may raise ClientError.
Source = Callable[[], list[Entry]]


def source(settings: Settings) -> Source:
    """The source that the settings ask for. Raises StageError if a directory is not a sealed artifact."""
    if settings.model and settings.tokenizer:
        return fixed(settings.model, settings.tokenizer)
    assert settings.api_url is not None  # Settings checks that there is a source
    return promoted(Client(settings.api_url, next(iter(settings.keys()), None)))


def promoted(client: Client) -> Source:
    """The promoted checkpoints of the control API."""
    return lambda: [_entry(m) for m in client.models()]


def fixed(model: Path, tokenizer: Path) -> Source:
    """One sealed checkpoint on disk. Raises StageError if either directory has no manifest."""
    name = model.resolve().name
    entry = Entry(name, name, 0, datetime.now(UTC), artifact_at(model), artifact_at(tokenizer))
    return lambda: [entry]


def _entry(m: Promoted) -> Entry:
    return Entry(
        id=m.id,
        stage=m.stage,
        step=m.step,
        created_at=m.created_at,
        model=Artifact(path=m.model.path, sha256=m.model.sha256),
        tokenizer=Artifact(path=m.tokenizer.path, sha256=m.tokenizer.sha256),
        run_id=m.run_id,
        run_name=m.run_name,
    )
