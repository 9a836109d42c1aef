"""start: make the model that a run starts from, and its tokenizer, artifacts of the run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nanochat.config.from_spec import FromSpec
from nanochat.contract.contract import MANIFEST, StageContext, StageError, artifact_at, seal, verify
from nanochat.interchange import arriving
from nanochat.interchange.folder import Refused
from nanochat.planning.origin import NoOrigin, Origin, find
from nanochat.tokenizer import Tokenizer
from nanochat.train.checkpoint import META, MODEL, load_config


def run(ctx: StageContext) -> None:
    """Publish `model`, `tokenizer` and `results`. Raises StageError."""
    if ctx.rank:
        return
    start = FromSpec.model_validate(ctx.spec.config["from_"])
    try:
        origin = find(start)
        if origin.foreign:
            arriving.write(arriving.Arrival.open(origin.model), ctx.out / "imported", force=True)
            model, tokenizer = ctx.out / "imported" / "model", ctx.out / "imported" / "tokenizer"
        else:
            model, tokenizer = _copies(ctx, origin)
    except (NoOrigin, Refused) as err:
        raise StageError(str(err), code="bad_start", hint="correct the section `from` of the recipe") from err
    config, meta = load_config(model)
    digest, size = artifact_at(tokenizer).sha256, Tokenizer.load(tokenizer).vocab_size
    if size != config.vocab_size or meta.get("tokenizer_sha256") not in (None, digest):
        raise StageError(
            f"the model in {origin.model} was trained with another tokenizer than that in {origin.tokenizer}",
            code="tokenizer_mismatch",
            hint="give from.tokenizer, the tokenizer of the run that trained the model",
        )
    for name, folder in (("model", model), ("tokenizer", tokenizer)):
        artifact = artifact_at(folder)
        ctx.events.emit("artifact", name=name, path=artifact.path, sha256=artifact.sha256)
    ctx.publish_results(
        {
            "model": str(origin.model),
            "trained_by": meta.get("stage"),
            "step": meta.get("step"),
            "tokenizer": str(origin.tokenizer),
            "first": start.first,
        }
    )


def _copies(ctx: StageContext, origin: Origin) -> tuple[Path, Path]:
    """The model's own files, linked where the file system can, so that the run survives the deletion of its source."""
    verify(artifact_at(origin.model))
    verify(artifact_at(origin.tokenizer))
    model, tokenizer = ctx.out / "model", ctx.out / "tokenizer"
    for folder in (model, tokenizer):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name in (MODEL, META):
        _link(origin.model / name, model / name)
    seal(model, name="model", stage=ctx.spec.stage)
    for path in origin.tokenizer.iterdir():  # with its manifest, whose digest the model names
        if path.is_file() and path.name != MANIFEST:
            _link(path, tokenizer / path.name)
    _link(origin.tokenizer / MANIFEST, tokenizer / MANIFEST)
    return model, tokenizer


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
