"""A few faults of the campaign (`make faults` inflicts all): those in which two workers train one stage."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.campaign import outcome as outcomes
from tests.faults.campaign.__main__ import inflict, rounds
from tests.faults.campaign.faults import FAULTS
from tests.faults.campaign.outcome import Outcome
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


def test_each_round_inflicts_every_fault_once_and_the_last_one_is_cut_off() -> None:
    lanes = [[job for jobs in rounds(2 * len(FAULTS) + 5, FAULTS, 0, lane, 2) for job in jobs] for lane in (0, 1)]
    assert lanes[0][: len(FAULTS)] == next(rounds(len(FAULTS), FAULTS, 0, 0, 1))
    assert [len(lane) for lane in lanes] == [len(FAULTS) + 5, len(FAULTS)]
    assert {(fault.name, seed) for fault, seed in lanes[1]} == {(name, 1) for name in BY_NAME}
    services = [fault.services for fault, _ in lanes[1]]
    assert sum(one != two for one, two in pairwise(services)) == len(set(services)) - 1  # each is started once


def test_the_log_becomes_the_table_of_a_page(tmp_path: Path) -> None:
    log, page = tmp_path / "log.jsonl", tmp_path / "page.md"
    page.write_text(f"before\n{outcomes.BEGIN}\nan old table\n{outcomes.END}\nafter\n")
    Outcome("cancel", 0, 3.0, [], standstill=1.0, commit="c1", began="10:00", load=1.2).append_to(log)
    broken = ["the curve is whole: it lacks 2 steps", "no service dies: api died"]
    Outcome("cancel", 1, 3.0, broken, standstill=4.0, commit="c2", began="11:00", load=3.0).append_to(log)
    Outcome("full disk", 0, 0.0, [], skipped="no mount").append_to(log)
    outcomes.write_into(page, outcomes.table(outcomes.read(log), ["cancel", "full disk"]))
    assert page.read_text().splitlines() == [
        "before",
        outcomes.BEGIN,
        "| fault | runs | survived | broken | recovery s (median) |",
        "|---|---:|---:|---|---:|",
        "| cancel | 2 | 1 | the curve is whole (1), no service dies (1) | 2.5 |",
        "| full disk | 0 | 0 |  |  |",
        "| **all** | 2 | 1 | the curve is whole (1), no service dies (1) | 2.5 |",
        "",
        "From 10:00 to 11:00, at a load of 1 to 3. Commits: c1 (1), c2 (1).",
        outcomes.END,
        "after",
    ]
