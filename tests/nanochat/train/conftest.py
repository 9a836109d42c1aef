from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nanochat.contract.contract import Artifact
from nanochat.train import meter

from . import house
from .house import StageRun


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> dict[str, Artifact]:
    return house.build(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(autouse=True, scope="session")
def _every_step_is_reported():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meter, "QUIET_S", 0.0)
        yield


@pytest.fixture
def base(inputs, tmp_path) -> Callable[..., StageRun]:
    """`base("name", resume_from=…, num_iterations=…)` is an attempt at pretraining, in its own folder."""

    def make(name: str = "base", *, resume_from: Artifact | None = None, seed: int = 42, **changes: Any) -> StageRun:
        config = {"model": house.MODEL, "base": {**house.BASE, **changes}}
        return StageRun(tmp_path / name, "base_train", inputs, config, resume_from, seed)

    return make


@pytest.fixture(scope="session")
def trained(inputs, tmp_path_factory) -> StageRun:
    """A deterministic pretraining that ran to its end without interruption."""
    out: Path = tmp_path_factory.mktemp("trained") / "base"
    run = StageRun(out, "base_train", inputs, {"model": house.MODEL, "base": {**house.BASE, "deterministic": True}})
    assert run.here() == 0, run.events("error")
    return run
