"""What earlier attempts of a local run still hold good: a stage is kept if its configuration and its inputs are as they were."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nanochat.config.recipe import Recipe
from nanochat.contract.contract import EVENTS, MANIFEST, SPEC, Artifact, StageError, StageSpec, attempts, verify
from nanochat.contract.events import read
from nanochat.contract.paths import path_of
from nanochat.planning import graph

SHOWN = 3  # differences that are named


@dataclass(frozen=True, slots=True)
class Earlier:
    """What there is of a stage. `outputs` are those of a complete attempt that is kept, `checkpoint` is where an unfinished one
    continues, and `difference` says why the newest attempt is of no use."""

    last: int = 0
    kept: int | None = None
    outputs: dict[str, Artifact] | None = None
    checkpoint: Artifact | None = None
    difference: str = ""


def look(folder: Path, wanted: StageSpec) -> Earlier:
    """Compare the attempts in a stage's folder, from the newest back to the first that differs, with the stage as it would run now."""
    found = attempts(folder)
    last = max(found, default=0)
    for number, attempt in found.items():
        if difference := _difference(attempt, wanted):
            return Earlier(last, difference=difference if number == last else "")
        if (attempt / MANIFEST).exists():
            outputs = _outputs(attempt)
            return Earlier(last, number, outputs) if outputs else Earlier(last, difference="its outputs are gone or damaged")
        if saved := _newest_checkpoint(attempt):
            return Earlier(last, checkpoint=saved)
    return Earlier(last)


def _difference(attempt: Path, wanted: StageSpec) -> str:
    """How an attempt differs from the stage as it would run now, in words; empty if it does not."""
    try:
        old = StageSpec.model_validate_json((attempt / SPEC).read_bytes())
    except (OSError, ValidationError):
        return f"{attempt / SPEC} cannot be read"
    then, now = (dict(_leaves(_settings(spec))) for spec in (old, wanted))
    changed = [
        f"{key} is {_shown(now.get(key))}, was {_shown(then.get(key))}" for key in now | then if now.get(key) != then.get(key)
    ]
    if changed:
        more = len(changed) - SHOWN
        return "; ".join(changed[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
    digests = [{name: artifact.sha256 for name, artifact in spec.inputs.items()} for spec in (old, wanted)]
    if others := sorted(name for name in digests[0] | digests[1] if digests[0].get(name) != digests[1].get(name)):
        return f"what it reads has changed: {', '.join(others)}"
    if wanted.kind == "data" and _text_changed(wanted.config, attempt / SPEC):
        return "files of data.source.path have changed"
    return ""


def _settings(spec: StageSpec) -> dict[str, Any]:
    """What decides the stage's outputs. Sections get the defaults of today: an older program did not write the newer fields."""
    found: dict[str, Any] = {"seed": spec.seed}
    for key, value in graph.decisive(spec.config).items():
        field = Recipe.model_fields.get(key)
        if key == "recipe":  # only its name
            continue
        name = field.alias if field and field.alias else key  # what a person writes
        found[name] = value
        if field is not None and field.annotation is not None:
            section = TypeAdapter[Any](field.annotation)
            with contextlib.suppress(ValidationError):
                found[name] = section.dump_python(section.validate_python(value), mode="json")
    return found


def _leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix.removeprefix("full_recipe."), value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _text_changed(config: dict[str, Any], since: Path) -> bool:
    """Whether a file of the user's folder was added, removed or written after the attempt began."""
    source = config.get("data", {}).get("source", {})
    if source.get("kind") != "folder":
        return False
    folder = path_of(source["path"])
    began = since.stat().st_mtime_ns
    return not folder.is_dir() or any(path.stat().st_mtime_ns > began for path in (folder, *folder.iterdir()) if path.exists())


def _outputs(attempt: Path) -> dict[str, Artifact] | None:
    """The outputs of a complete attempt; None if one is gone or damaged."""
    manifest = json.loads((attempt / MANIFEST).read_text(encoding="utf-8"))
    outputs = {name: Artifact(**artifact) for name, artifact in manifest["outputs"].items()}
    try:
        for artifact in outputs.values():
            verify(artifact, deep=False)
    except StageError:
        return None
    return outputs


def _newest_checkpoint(attempt: Path) -> Artifact | None:
    events = read(attempt / EVENTS)
    kept = [e for e in events if e["kind"] == "checkpoint" and (Path(e["path"]) / MANIFEST).exists()]
    return Artifact(path=kept[-1]["path"], sha256=kept[-1]["sha256"]) if kept else None
