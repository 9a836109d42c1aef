from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanochat.contract.contract import Artifact

from . import stage_run
from .stage_run import StageRun


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> dict[str, Artifact]:
    return stage_run.build(tmp_path_factory.mktemp("inputs"))


@pytest.fixture
def base(inputs, tmp_path) -> Callable[..., StageRun]:
    """`base("name", resume_from=…, num_iterations=…)` is an attempt at pretraining, in its own folder."""

    def make(name: str = "base", *, resume_from: Artifact | None = None, seed: int = 42, **changes: Any) -> StageRun:
        config = {"model": stage_run.MODEL, "base": {**stage_run.BASE, **changes}}
        return StageRun(tmp_path / name, "base_train", inputs, config, resume_from, seed)

    return make


@pytest.fixture(scope="session")
def trained(inputs, tmp_path_factory) -> StageRun:
    """A deterministic pretraining that ran to its end without interruption."""
    out: Path = tmp_path_factory.mktemp("trained") / "base"
    run = StageRun(out, "base_train", inputs, {"model": stage_run.MODEL, "base": {**stage_run.BASE, "deterministic": True}})
    assert run.in_process() == 0, run.events("error")
    return run
