"""The scanner splits text exactly as the regex does.

Python's `regex` may support a newer Unicode version than the Rust engines. Characters that only the newer version
knows are left out here; `test_classes_are_those_of_tiktoken` covers every code point.
"""

import unicodedata
from pathlib import Path

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

import rustbpe

PATTERNS = {"nanochat": rustbpe.SPLIT_PATTERN, "cl100k": rustbpe.CL100K_PATTERN}
# In Python, `$` also matches before a final newline. In the Rust engines it does not.
COMPILED = {name: regex.compile(pattern.replace("$", r"\Z")) for name, pattern in PATTERNS.items()}
DISTINCTIVE = st.sampled_from(list("aSstdmlLvVeErR'’!_.12٣Ⅷ \t\n\r\x0b\x00\x1c\x85\xa0\u2028\u3000ſKéß中𐐀🙂\u0301\u200d"))


def code_points() -> list[str]:
    return [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]


NEWER = {ord(c): None for c in regex.findall(r"[\p{L}\p{N}\s]", "".join(code_points())) if unicodedata.category(c) == "Cn"}


def assert_same(name: str, text: str) -> None:
    text = text.translate(NEWER)
    assert rustbpe.split(text, PATTERNS[name]) == COMPILED[name].findall(text)


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=1500, deadline=None)
@given(text=st.text(DISTINCTIVE, max_size=40))
def test_random_strings_of_distinctive_characters(name: str, text: str) -> None:
    assert_same(name, text)


@pytest.mark.parametrize("name", PATTERNS)
@settings(max_examples=500, deadline=None)
@given(text=st.text())
def test_random_unicode(name: str, text: str) -> None:
    assert_same(name, text)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_code_point_next_to_every_class(name: str) -> None:
    """Each code point first, last and next to letters, digits, spaces, newlines, others, apostrophes and itself."""
    # Both patterns use the same classes; for the second one, a fifth of the large blocks is enough.
    characters = code_points() if name == "nanochat" else code_points()[:0x3400] + code_points()[0x3400::5]
    for start in range(0, len(characters), 1 << 14):
        block = characters[start : start + (1 << 14)]
        assert_same(name, "".join(f"a{c} {c}1{c}\n{c}!{c}{c}\t{c}'{c}s" for c in block))


@pytest.mark.parametrize("name", PATTERNS)
def test_end_of_text(name: str) -> None:
    """The end of a text has rules of its own. Eight texts for each of about 2,300 code points from all planes."""
    for c in [*code_points()[:0x600], *code_points()[0x600::1501], *"\u2028\u2029\u3000"]:
        for text in (c, f"a{c}", f" {c}", f"\n{c}", f"{c} ", f"{c}\n ", f"{c}  \n\n", f"'{c}"):
            assert_same(name, text)


def test_classes_are_those_of_tiktoken() -> None:
    """A code point joins a letter, a digit or a mark to one chunk in tiktoken exactly if it does here."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    for first in b"a1!":
        for second in range(256):
            ranks[bytes([first, second])] = len(ranks)
    theirs = tiktoken.Encoding("pairs", pat_str=rustbpe.SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})
    ours = rustbpe.Tokenizer(ranks)
    characters = code_points()
    for start in range(0, len(characters), 1 << 16):
        text = "\n".join(f"a{c}\n1{c}\n!{c}" for c in characters[start : start + (1 << 16)])
        assert ours.encode(text) == theirs.encode_ordinary(text)


@pytest.mark.parametrize("name", PATTERNS)
def test_corpus(name: str, documents: list[str]) -> None:
    assert_same(name, "\n\n".join(documents))


@pytest.mark.parametrize("name", PATTERNS)
def test_other_corpora(name: str, shards: list[Path]) -> None:
    data = shards[0].parents[1]
    files = [path for path in sorted(data.glob("*/*.jsonl")) if path.stat().st_size < 4_000_000]
    if not files:
        pytest.skip(f"no task files in {data}")
    for path in files:
        assert_same(name, path.read_text()[:400_000])


def test_any_other_pattern_goes_through_a_regex_engine() -> None:
    assert rustbpe.split("ab, cd!", r"\p{L}+|\P{L}+") == ["ab", ", ", "cd", "!"]
    assert rustbpe.split("ab12", r"\p{L}+(?=1)|\d") == ["ab", "1", "2"]


def test_text_that_a_pattern_does_not_match_is_kept() -> None:
    assert rustbpe.split("ab, cd!", r"\p{L}+") == ["ab", ", ", "cd", "!"]


@pytest.mark.parametrize("pattern", ["a*", "", "a|", r"\b", "(?=a)|b?"])
def test_a_pattern_that_can_match_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="empty string"):
        rustbpe.split("banana", pattern)


def test_a_pattern_that_does_not_compile_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(a"):
        rustbpe.split("banana", "(a")


def test_an_empty_match_found_only_on_the_text_is_refused() -> None:
    with pytest.raises(ValueError, match="empty string at byte 1"):
        rustbpe.split("xab", "(?=a)|b")
