"""Wrong command lines: each answer says what is wrong and what to type instead."""

from __future__ import annotations

import re

import pytest

from tests.client.conftest import Here


def words(text: str) -> str:
    """What a box of an error says, on one line."""
    return re.sub(r"[\s│╭╮╰╯─]+", " ", text)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--context lab ps -q", "--context comes after the command: nanochat ps -q --context lab"),
        ("--context=lab chat", "--context comes after the command: nanochat chat --context=lab"),
        ("--json --utc keys list", "--json comes after the command: nanochat keys list --json --utc"),
        ("context --utc list", "--utc comes after the command: nanochat context list --utc"),
        ("--no-color", "--no-color comes after the command: nanochat COMMAND --no-color"),
        ("--context ps", "--context comes after the command: nanochat COMMAND --context ps"),
        ("--json up", "No such option: --json"),
        ("--nope ps", "No such option: --nope"),
    ],
)
def test_an_option_before_its_command_is_told_where_it_goes(here: Here, typed: str, meant: str) -> None:
    done = here(*typed.split(), COLUMNS="100")
    assert done.code == 2
    assert meant in words(done.err)


def test_that_line_fits_a_narrow_terminal(here: Here) -> None:
    done = here("--context", "lab", "ps", columns=40)
    assert done.code == 2
    assert done.widest <= 40
