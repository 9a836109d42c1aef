"""A few faults of the campaign (`make faults` inflicts all): those in which two workers train one stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign.__main__ import inflict
from tests.faults.campaign.faults import FAULTS
from tests.faults.campaign.stack import Stack

BY_NAME = {fault.name: fault for fault in FAULTS}
CHOSEN = (
    "kill -9 the worker that leads two machines",
    "kill -9 the other worker of two machines",
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("campaign") / "stack")
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHOSEN)
def test_a_run_survives(stack: Stack, name: str, tmp_path: Path) -> None:
    assert inflict(stack, BY_NAME[name], seed=1).problems == []


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(FAULTS)
