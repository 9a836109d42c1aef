"""Wrong command lines: each answer says what is wrong and what to type instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from client.cli_options import recipe_of
from nanochat.config.recipe import RecipeError, load
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


@pytest.mark.parametrize("command", ["edit tiny", "sweep edit s", "webhook change alerts"])
def test_a_change_of_nothing_is_refused_with_what_can_be_changed(here: Here, command: str) -> None:
    done = here(*command.split(), COLUMNS="400", NANOCHAT_API_URL="http://127.0.0.1:1", NANOCHAT_API_KEY="k")
    assert done.code == 2
    assert "nothing is to be changed; give at least one of --name, --" in words(done.err)


@pytest.mark.parametrize("command", ["data check", "inspect", "identity"])
def test_the_process_of_a_command_speaks_of_the_command(here: Here, command: str) -> None:
    """What only the process can refuse, it refuses in the name of what was typed."""
    wrong = {"data check": ["x.jsonl", "--context", "9999999"], "inspect": ["x", "--row", "9999999999"]}
    done = here(*command.split(), *wrong.get(command, ["--name", "a{b", "--facts", "f"]))
    assert done.code == 2
    assert f"usage: nanochat {command} " in done.err
    assert f"nanochat {command}: error: argument" in done.err


BROKEN = {
    "syntax": (b"a = [\n", "not valid TOML: Invalid value (at end of document)"),
    "twice": (b"seed = 1\nseed = 2\n", "not valid TOML: Cannot overwrite a value (at line 2"),
    "nul": (b'name = "a\0b"\n', "not valid TOML: Illegal character"),
    "number": (b"seed = " + b"9" * 5000, "not valid TOML: Exceeds the limit"),
    "deep": (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    "utf16": ('name = "x"'.encode("utf-16"), "not UTF-8 text; save it as UTF-8"),
    "empty": (b"", "has no field"),
    "comment": (b"# soon\n", "has no field"),
}


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_recipe_file_is_told_in_a_line(here: Here, tmp_path: Path, content: str) -> None:
    data, why = BROKEN[content]
    file = tmp_path / "x.toml"
    file.write_bytes(data)
    for command in ("plan", "submit"):
        done = here(command, str(file), COLUMNS="400", NANOCHAT_API_URL="http://127.0.0.1:1", NANOCHAT_API_KEY="k")
        assert (done.code, why in words(done.err)) == (2, True), done.err
    with pytest.raises(RecipeError, match=re.escape(why)):
        load(str(file))


def test_a_folder_is_no_recipe_file(here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "x.toml"
    folder.mkdir()
    assert "Is a directory" in words(here("plan", str(folder), COLUMNS="400").err)
    with pytest.raises(RecipeError, match="is a folder"):
        load(str(folder))


def test_a_recipe_file_of_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_bytes(b'\xef\xbb\xbfname = "x"\r\n')
    assert recipe_of(str(file)) == load(str(file)) == {"name": "x"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("ps", "--context", ""), "--context"),
        (("submit", "tiny", "--from", ""), "--from"),
        (("submit", "tiny", "--data", ""), "--data"),
        (("submit", "tiny", "--idempotency-key", ""), "--idempotency-key"),
        (("export", "--force", "--to", "hf", "--model", "m", ""), "FOLDER"),
        (("identity", "--name", "Kim", "--facts", "facts.md", "--out", ""), "--out"),
        (("chat", "--model", "", "Hi"), "--model"),
        (("show", ""), "RUN"),
    ],
)
def test_an_empty_text_is_neither_the_default_nor_this_folder(here: Here, arguments: tuple[str, ...], named: str) -> None:
    done = here(*arguments)
    assert (done.code, f"Invalid value for {named}: it is empty" in done.err) == (2, True), done.err
