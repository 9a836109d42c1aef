"""Grammars: what is refused, what is said about it, and which texts fit."""

import json
import pickle
import random
import threading

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.grammar import Grammar, GrammarError, Grammars, Vocabulary, allowed

BYTES = Vocabulary([*(bytes([byte]) for byte in range(256)), b"<|end|>"], [256], [256], lambda text: list(text.encode()))
END = 256


@pytest.fixture(scope="module")
def grammars():
    return Grammars(lambda: BYTES)


def next_tokens(matcher):
    return set(np.flatnonzero(np.unpackbits(allowed([matcher]).view(np.uint8), bitorder="little")).tolist())


def fits(grammars, grammar, text):
    """Whether the grammar lets exactly this text be the whole answer."""
    matcher = grammars.matcher(grammar)
    for token in text.encode():
        if token not in next_tokens(matcher):
            return False
        matcher.take(token)
    return END in next_tokens(matcher)


REFUSED = [
    (lambda: Grammar.regex("(a"), "unclosed group"),
    (lambda: Grammar.regex("(?=a)b"), "look-around"),
    (lambda: Grammar.regex(r"(a)\1"), "backreferences are not supported"),
    (lambda: Grammar.regex(r"\bword\b"), "lookarounds not supported"),
    (lambda: Grammar.regex(""), "empty"),
    (lambda: Grammar.regex("a" * 200_000), "200000 characters"),
    (lambda: Grammar.regex(r"[^\s\S]"), "no text fits"),
    (lambda: Grammar.choice([]), "at least one choice"),
    (lambda: Grammar.choice(["a", ""]), "none may be empty"),
    (lambda: Grammar.choice(["a"] * 1001), "1001 choices"),
    (lambda: Grammar.json_schema({"type": "thing"}), "Invalid type: thing"),
    (lambda: Grammar.json_schema({"type": "array", "uniqueItems": True, "not": {}}), "not supported: .*not.*"),
    (lambda: Grammar.json_schema({"$ref": "http://elsewhere/schema"}), "elsewhere"),
    (lambda: Grammar.json_schema({"$ref": "#/$defs/missing"}), "missing"),
    (lambda: Grammar.json_schema({"$ref": "#"}), "no text fits"),
    (lambda: Grammar.json_schema({"type": "integer", "minimum": 5, "maximum": 3}), "Unsatisfiable"),
    (lambda: Grammar.json_schema({"enum": []}), "Unsatisfiable"),
    (lambda: Grammar.json_schema({"type": "string", "pattern": "(?=x)"}), "look-around"),
    (lambda: Grammar.json_schema({"type": "string", "format": "credit-card"}), "Unknown format"),
    (lambda: Grammar.json_schema({"x-guidance": {"lenient": True}}), "x-guidance"),
    (lambda: Grammar.json_schema({"enum": ["x" * 200_000]}), "characters"),
    (lambda: Grammar.json_schema(nested(60)), "50 levels"),
    (lambda: Grammar.json_schema(nested(5000)), "50 levels"),
]


def nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_a_bad_grammar_is_refused_with_its_reason_in_one_line(grammars, make, message):
    with pytest.raises(GrammarError, match=message) as refused:
        grammars.matcher(make())
    assert "\n" not in str(refused.value)


def test_without_strict_unsupported_keywords_have_no_effect(grammars):
    schema = {"type": "array", "items": {"type": "integer"}, "maxItems": 3, "uniqueItems": True}
    with pytest.raises(GrammarError, match="uniqueItems"):
        grammars.matcher(Grammar.json_schema(schema))
    lenient = Grammar.json_schema(schema, strict=False)
    assert fits(grammars, lenient, "[1, 1]")
    assert not fits(grammars, lenient, "[1, 1, 1, 1]")


@pytest.mark.parametrize(
    ("text", "fit"),
    [
        ('{"a": 1}', True),
        ('{"a":1,"b":[true,null]}', True),
        ('{\n  "a": 1\n}', True),
        ("{}", True),
        ('{"a": 1', False),
        ("[1]", False),
        ('{"a": 1} ', False),
        ('{"a":   1}', False),
    ],
)
def test_a_json_object_is_compact_or_indented(grammars, text, fit):
    assert fits(grammars, Grammar.json_object(), text) == fit


@settings(max_examples=60, deadline=None)
@given(choices=st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=6), other=st.text(min_size=1, max_size=6))
def test_choices_are_taken_literally(choices, other):
    grammars, grammar = Grammars(lambda: BYTES), Grammar.choice(choices)
    assert all(fits(grammars, grammar, choice) for choice in choices)
    assert fits(grammars, grammar, other) == (other in choices)


@pytest.mark.parametrize(
    "pattern", [r"[a-c]{2,4}", r"(ab|c)*d?", r"^x.y$", r"[^a]\d", r"(?i)abc", r"\w+@\w+\.(de|fr)", r"é|ü+", r"a/b", r'"a\\b"']
)
def test_a_regex_means_what_it_means_elsewhere(grammars, pattern):
    rng, grammar = random.Random(0), Grammar.regex(pattern)
    for _ in range(20):
        matcher, text = grammars.matcher(grammar), []
        while (options := sorted(next_tokens(matcher))) != [END] and len(text) < 40:
            if (token := rng.choice(options)) == END:
                break
            text.append(token)
            matcher.take(token)
        if END in options:
            assert regex.fullmatch(pattern, bytes(text).decode())
    for text in ("ab", "ababd", "x1y", "b7", "aBC", "me@there.de", "üü", "a/b", '"a\\b"', "", "zz"):
        assert fits(grammars, grammar, text) == bool(regex.fullmatch(pattern, text))


def test_a_grammar_can_leave_the_process():
    grammar = Grammar.json_schema({"type": "string"}, strict=False)
    assert pickle.loads(pickle.dumps(grammar)) == grammar
    assert hash(grammar) == hash(Grammar("json_schema", json.dumps({"type": "string"}), False))


def test_one_grammar_serves_any_number_of_answers(grammars):
    """Each answer has a state of its own, whose size is bounded; what one has used up is not missing in the next."""
    hungry = Grammar.regex("(.*a.{20}b.{20})*")  # its lexer needs a new state for nearly every character
    rng, length = random.Random(0), []
    for _ in range(2):
        matcher = grammars.matcher(hungry)
        taken = 0
        while taken < 3000 and len(next_tokens(matcher)) > 1:
            matcher.take(rng.choice(b"ab"))
            taken += 1
        assert matcher.failed
        assert next_tokens(matcher) == {END}
        length.append(taken)
    assert min(length) > 1000


def test_a_known_grammar_does_not_wait_for_one_that_takes_long_to_compile(grammars):
    known = Grammar.regex("[ab]+")
    grammars.matcher(known)
    slow = threading.Thread(target=grammars.matcher, args=(Grammar.json_schema({"type": "integer", "multipleOf": 200_003}),))
    slow.start()
    for _ in range(20):
        assert next_tokens(grammars.matcher(known)) == set(b"ab")
    assert slow.is_alive()
    slow.join()
