"""One text means one thing, whether it stands behind --set or in SET of `make demo`."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from client.cli import app
from client.cli_options import overrides_of
from client.overrides import OverrideError, parse, parse_text
from nanochat.local import options
from services.standalone.child import StartError
from services.standalone.demo import check, data_overrides, set_overrides
from tests.api.server import Api

# What a person writes -> field, value.
READ: list[tuple[str, str, Any]] = [
    ("a.b=20", "a.b", 20),
    ("a.b=-3", "a.b", -3),
    ("a.b=0.02", "a.b", 0.02),
    ("a.b=1e-4", "a.b", 1e-4),
    ("a.b=007", "a.b", "007"),
    ("a.b=1_000", "a.b", "1_000"),
    ("a.b=true", "a.b", True),
    ("a.b=True", "a.b", "True"),
    ("a.b=null", "a.b", None),
    ("a.b=NaN", "a.b", "NaN"),
    ("a.b=-Infinity", "a.b", "-Infinity"),
    ("a.b=1e999", "a.b", "1e999"),
    ("a.b=[NaN]", "a.b", "[NaN]"),
    ("a.b=text", "a.b", "text"),
    ("a.b=two words", "a.b", "two words"),
    ('a.b="text"', "a.b", "text"),
    ('a.b="20"', "a.b", "20"),
    ('a.b=""', "a.b", ""),
    ('a.b=" "', "a.b", " "),
    ('a.b="open', "a.b", '"open'),
    ("a.b='20'", "a.b", "'20'"),
    ("a.b=[1, 2.5, null]", "a.b", [1, 2.5, None]),
    ('a.b=["x", "y"]', "a.b", ["x", "y"]),
    ("a.b=[1, 2", "a.b", "[1, 2"),
    ('a.b={"kind": "folder", "path": "/x=y"}', "a.b", {"kind": "folder", "path": "/x=y"}),
    ("a.b=https://host/?x=1&y=2", "a.b", "https://host/?x=1&y=2"),
    ("a.b==", "a.b", "="),
    ("a.b=naïve 日本語", "a.b", "naïve 日本語"),
    ("a.b=x # y", "a.b", "x # y"),
    ("depth=4", "depth", 4),
    ("a.b.c.d=1", "a.b.c.d", 1),
    ("  a.b = 20  ", "a.b", 20),
    ("a.b = text ", "a.b", "text"),
]
REFUSED = {
    "a.b": "field=value",
    "=20": "field=value",
    " = 20": "field=value",
    "a.b=": 'a.b=""',
    "a.b =  ": 'a.b=""',
}


def same(found: Any, value: Any) -> bool:
    """Equal and of one type: 1 is neither 1.0 nor True."""
    return json.dumps(found) == json.dumps(value)


@pytest.mark.parametrize(("text", "field", "value"), READ)
def test_a_text_means_the_same_everywhere(text: str, field: str, value: Any) -> None:
    assert same(parse([text]), {field: value})
    assert same(parse_text(text), {field: value})
    assert same(set_overrides(text), {field: value})  # make demo
    assert same(overrides_of([text], None), {field: value})  # submit, plan, local-run
    assert same(options.table(json.dumps(parse([text]))), {field: value})  # the process behind local-run and plan --gpus


@pytest.mark.parametrize(("text", "says"), REFUSED.items())
def test_what_cannot_be_read_is_refused_everywhere(text: str, says: str) -> None:
    with pytest.raises(OverrideError, match=says):
        parse([text])
    with pytest.raises(OverrideError, match=f"line 3: .*{says}"):
        parse_text(f"depth=4\n\n{text}")
    with pytest.raises(StartError, match=says):
        set_overrides(text)
    with pytest.raises(typer.BadParameter, match=says) as refusal:
        overrides_of([text], None)
    assert refusal.value.param_hint == "--set"


def test_the_last_of_several_for_one_field_wins() -> None:
    assert parse(["a=1", "b=2", "a=3"]) == parse_text("a=1\nb = 2\r\n\n# a = 4\na=3\n") == {"a": 3, "b": 2}


def test_a_json_object_holds_several() -> None:
    assert parse_text(' {"a.b": 20, "c": ["x"]}\n') == {"a.b": 20, "c": ["x"]}
    for broken in ('{"a": 20', "{a: 20}", '{"a": NaN}'):
        with pytest.raises(OverrideError, match="not a JSON object"):
            parse_text(broken)


def test_a_folder_of_data_comes_first_so_that_a_setting_can_change_it(tmp_path: Path) -> None:
    found = parse(["data.source.max_chars=1000"], tmp_path / "x" / "..")
    assert list(found.items()) == [
        ("data.source", {"kind": "folder", "path": str(tmp_path)}),
        ("data.source.max_chars", 1000),
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_every_json_value_is_read_back(value: Any) -> None:
    assert same(parse([f"a.b={json.dumps(value)}"]), {"a.b": value})


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_and_what_is_read_is_json(text: str) -> None:
    try:
        found = parse([text])
    except OverrideError:
        return
    assert same(json.loads(json.dumps(found, allow_nan=False)), found)
    (value,) = found.values()
    assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ("base.num_iterations = 3", ("base", "num_iterations"), 3),
        ("base.warmdown_ratio=1e-1", ("base", "warmdown_ratio"), 0.1),
        ('data.source={"kind": "pydocs", "max_chars": 1000000}', ("data", "source", "max_chars"), 1_000_000),
        ("description=depth = 20", ("description",), "depth = 20"),
        ('name="mine"', ("name",), "mine"),
    ],
)
def test_a_plan_made_here_and_one_by_the_api_read_it_alike(
    api: Api, monkeypatch: pytest.MonkeyPatch, change: str, path: tuple[str, ...], value: Any
) -> None:
    monkeypatch.setenv("NANOCHAT_API_URL", api.url)
    monkeypatch.setenv("NANOCHAT_API_KEY", api.key)
    for hardware in ([], ["--gpus", "1"]):
        answer = CliRunner().invoke(app, ["plan", "tiny", "--set", change, "--json", *hardware], catch_exceptions=False)
        assert answer.exit_code == 0, answer.output
        assert same(functools.reduce(lambda table, key: table[key], path, json.loads(answer.stdout)["config"]), value)


def test_the_demo_refuses_a_wrong_field_before_it_starts_anything(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A line of text.\n" * 50)
    check({**data_overrides(str(tmp_path)), "base.num_iterations": 20})
    with pytest.raises(StartError, match=r"base\.colour: unknown field") as caught:
        check({**data_overrides("/nonexistent"), **set_overrides("base.colour = 1")})
    assert "data.source.path: no folder /nonexistent" in str(caught.value)
