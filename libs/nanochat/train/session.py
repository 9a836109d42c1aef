"""Open a stage that uses a model: its configuration, ranks, seeds, model, and the checkpoint it resumes from."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from pydantic import ValidationError

from nanochat import distributed
from nanochat.config.recipe import InitSpec, RecipeError, Spec
from nanochat.contract.contract import ExitReport, StageContext, StageError, checkpoint_gone, verify
from nanochat.data.resize import Resizable, state_near
from nanochat.distributed import Ranks
from nanochat.model import GPT, GPTConfig, init_weights
from nanochat.tokenizer import Tokenizer
from nanochat.train import backend
from nanochat.train.checkpoint import Resume, load_config, load_model

SpecT = TypeVar("SpecT", bound=Spec)
LoaderT = TypeVar("LoaderT", bound=Resizable)


def section(ctx: StageContext, name: str, kind: type[SpecT]) -> SpecT:
    """Validate and return one section of the stage's configuration. Raises StageError that names the wrong field."""
    try:
        return kind.model_validate(ctx.spec.config.get(name))
    except ValidationError as err:
        first = err.errors()[0]
        field = ".".join([name, *map(str, first["loc"])])
        raise StageError(f"{field}: {first['msg']}", code="bad_config", hint="correct `config` in stage.json") from err


@contextlib.contextmanager
def session(ctx: StageContext, *, deterministic: bool, lengths_vary: bool = False) -> Iterator[Ranks]:
    """Join the stage's ranks, seed torch, and check or choose the attention back end.

    Turns a RecipeError (a batch that does not divide among the ranks) into a StageError, so that the stage ends as bad input.
    """
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with distributed.ranks(ctx.spec.device) as ranks:
        torch.manual_seed(ctx.spec.seed)
        if deterministic:  # otherwise skip the call: it loads the compiler, which costs a short stage seconds
            torch.use_deterministic_algorithms(True)
        if ranks.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            wrong = backend.complaint(backend.facts(ranks.device))
            if lengths_vary:
                backend.avoid_plans()
            elif wrong:
                ctx.events.emit("warning", code="attention_backend", message=wrong)
        try:
            yield ranks
        except RecipeError as err:
            raise StageError(str(err), code="indivisible_batch", hint="change the recipe or the number of processes") from err
        except StageError as err:
            told = checkpoint_gone(ctx.spec, err)
            # Report before leaving the process group: the other ranks then fail, and once one of them has ended, torchrun ends
            # this one too.
            with contextlib.suppress(OSError):  # it must not hide why the stage ends
                ExitReport.of(told, ranks.rank).save(ctx.out)
            raise told from err
        finally:
            if deterministic:
                torch.use_deterministic_algorithms(False)


def tokenizer_of(ctx: StageContext) -> tuple[Tokenizer, str]:
    """Load the stage's tokenizer. Returns it with its digest, by which checkpoints refer to it."""
    return Tokenizer.load(ctx.input("tokenizer")), ctx.spec.inputs["tokenizer"].sha256


def open_resume(ctx: StageContext) -> Resume | None:
    """The checkpoint to resume from, verified against its digest; None on a first attempt."""
    return Resume(verify(ctx.spec.resume_from)) if ctx.spec.resume_from else None


def config_of(ctx: StageContext) -> GPTConfig:
    """Read the shape of the stage's model before loading it. Raises StageError as `build_model` does."""
    artifact = ctx.spec.resume_from or ctx.spec.inputs.get("model")
    return load_config(verify(artifact, deep=False) if artifact else ctx.input("model"))[0]


def build_model(
    ctx: StageContext,
    ranks: Ranks,
    tokenizer: Tokenizer,
    digest: str,
    fresh: GPTConfig | None,
    init: InitSpec | None = None,
) -> GPT:
    """Build the model of the stage. Its weights come from the checkpoint that the stage resumes from.

    On a first attempt they are loaded from the stage's input `model`. A stage without that input draws them anew, in the shape
    `fresh` as `init` says. Raises StageError when a checkpoint is damaged, has another architecture than `fresh` or belongs to
    another tokenizer.
    """
    if ctx.spec.resume_from:
        model, meta = load_model(verify(ctx.spec.resume_from, deep=False), ranks.device)
        if meta.get("stage") != ctx.spec.stage or (fresh and model.config != fresh):
            raise StageError(
                f"{ctx.spec.resume_from.path} is a checkpoint of stage {meta.get('stage')} with {asdict(model.config)}; "
                f"stage {ctx.spec.stage} {f'has {asdict(fresh)}' if fresh else 'cannot resume from it'}",
                code="config_mismatch",
                hint="resume with the recipe that made the checkpoint",
            )
    elif fresh and "model" not in ctx.spec.inputs:
        with ranks.device:
            model = GPT(fresh)
        init_weights(model, init)
        return model
    else:
        model, meta = load_model(ctx.input("model"), ranks.device)
        if fresh and model.config != fresh:
            raise StageError(
                f"the model to start from has {asdict(model.config)}, but stage {ctx.spec.stage} has {asdict(fresh)}",
                code="config_mismatch",
                hint="give the section `model` of the recipe the shape of that model",
            )
    _check_tokenizer(ctx, model, meta, tokenizer, digest)
    return model


def build_loader(make: Callable[[dict[str, Any] | None], LoaderT], resume: Resume | None, ranks: Ranks) -> LoaderT:
    """Build the training loader at the position of the resumed checkpoint.

    If the number of ranks has changed, the position is close to the old one and repeats no data (`data/resize.py`).
    """
    if resume is None:
        return make(None)
    states = resume.loader_states()
    if resume.world_size == ranks.world_size:
        return make(states[ranks.rank])
    return make(state_near(make(None), states))


def _check_tokenizer(ctx: StageContext, model: GPT, meta: dict[str, Any], tokenizer: Tokenizer, digest: str) -> None:
    made_for = meta.get("tokenizer_sha256")
    if model.config.vocab_size != tokenizer.vocab_size or (made_for and made_for != digest):
        raise StageError(
            f"the model of stage {ctx.spec.stage} was trained with tokenizer {made_for} of {model.config.vocab_size} tokens, "
            f"not {digest} of {tokenizer.vocab_size}",
            code="tokenizer_mismatch",
            hint="use the tokenizer of the run that trained the model",
        )
