"""Prose from documentation: which paragraphs are kept, and that the result is always the same."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nanochat.data import pydocs
from nanochat.data.prose import paragraphs

PROSE = "This is a paragraph of plain English, and it is long enough to be kept as it is."


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (PROSE, [PROSE]),
        (f"{PROSE}\n\n{PROSE[:40]}", [PROSE]),
        (PROSE.replace(" and", "\n   and"), [PROSE]),
        (f">>> print('hello')\nhello\n\n{PROSE}", [PROSE]),
        (f"Example::\n\n    {PROSE}\n\n{PROSE}", [PROSE]),
        (f".. note::\n   {PROSE}\n\n   {PROSE}\n\n{PROSE}", [PROSE]),
        (f"```python\n{PROSE}\n```\n{PROSE}", [PROSE]),
        (f"Title of it\n===========\n\n{PROSE}", [PROSE]),
        (f"- {PROSE}\n- {PROSE[:-1]}!", [PROSE, f"{PROSE[:-1]}!"]),
        (f"name : str\n    {PROSE}", [PROSE]),
        (f":param name: {PROSE}", [PROSE]),
        (PROSE.replace("plain", "``plain``").replace("English", ":func:`~a.English`"), [PROSE.replace("English", "a.English")]),
        (PROSE.replace("plain", "**plain**").replace("English", "[English](http://a.b)"), [PROSE]),
        ("for (i = 0; i < n; i++) { this->is[i] = the_code(of) + a_language; } // and it is not prose, is it.", []),
        ("Ce paragraphe est un texte français assez long pour être gardé, mais il ne doit pas être pris.", []),
        ("| a | b | and the table is here | of it |\n|---|---|---|---|", []),
    ],
)
def test_paragraphs_of_prose_are_kept_without_markup(text: str, kept: list[str]) -> None:
    assert list(paragraphs(text)) == kept


def test_docstrings_and_comments_are_found_without_importing() -> None:
    source = (
        "#!/usr/bin/env python\n# Copyright\n\n"
        f'"""Module.\n\n{PROSE}\n"""\n'
        f'raise SystemExit("never run")\nNAME = """not a docstring. {PROSE}"""\n'
        f'class A:  # a comment\n    r"""Class. {PROSE}"""\n\n'
        f"    def f(self,\n          x):\n        '''Function.\n\n        {PROSE}\n        '''\n"
        f"# {PROSE}\n# One more line of the comment.\n#\n# And the last.\nx = '# not a comment'\n"
    )
    docstrings, comments = pydocs._python(source)
    assert docstrings.count(PROSE) == 3
    assert "never run" not in docstrings
    assert "not a docstring" not in docstrings
    assert "One more line" in comments
    assert "not a comment" not in comments


def test_the_harvest_is_deterministic_and_reused(tmp_path: Path) -> None:
    train, val = pydocs.harvest(tmp_path / "a", 120_000)
    again, val_again = pydocs.harvest(tmp_path / "b", 120_000)
    assert [p.read_bytes() for p in [*train, *val]] == [p.read_bytes() for p in [*again, *val_again]]
    made = train[0].stat().st_mtime_ns
    assert pydocs.harvest(tmp_path / "a", 120_000) == (train, val)
    assert train[0].stat().st_mtime_ns == made
    assert pydocs.harvest(tmp_path / "a", 60_000)[0] != train

    texts, held_out = ([text for path in paths for text in pq.read_table(path)["text"].to_pylist()] for paths in (train, val))
    assert 110_000 < sum(map(len, [*texts, *held_out])) < 150_000
    assert held_out
    assert len(val) == 1
    assert val[0].name > train[-1].name
    assert not set(texts) & set(held_out)
    assert min(map(len, texts)) >= 400
    pieces = [p for t in [*texts, *held_out] for p in t.split("\n\n")]
    assert len(pieces) == len(set(pieces))
    assert all(pq.ParquetFile(p).metadata.row_group(0).num_rows <= 1024 for p in [*train, *val])


def test_half_a_harvest_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pydocs, "write_shard", killed)
        with pytest.raises(KeyboardInterrupt):
            pydocs.harvest(tmp_path, 60_000)
    train, val = pydocs.harvest(tmp_path, 60_000)
    assert train
    assert val
