"""Constrained answers of a model with random weights, which alone would write nothing but noise."""

import json
import random

import jsonschema
import pytest
import regex
import torch

from nanochat.engine import Engine, Sampling
from nanochat.engine.sampler import fits_graph
from nanochat.grammar import Grammar, GrammarError

pytestmark = pytest.mark.usefixtures("one_core")
PROMPT = [3, 14, 15, 92, 65, 35]
CONTEXT = 512

STRING, DIGIT = {"type": "string", "maxLength": 5}, {"type": "integer", "minimum": 0, "maximum": 9}


def record(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


SCHEMAS = [
    record(name=STRING, age={"type": "integer", "minimum": 0, "maximum": 150}),
    record(tags={"type": "array", "items": {"enum": ["a", "b", 3, None]}, "minItems": 1, "maxItems": 4}),
    record(inner=record(deep=record(value={"type": "boolean"}))),
    record(when={"type": "string", "format": "date"}, id={"type": "string", "format": "uuid"}),
    record(code={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"}),
    record(either={"anyOf": [STRING, {"type": "null"}]}, pair={"type": "array", "prefixItems": [DIGIT, DIGIT], "items": False}),
    {"$defs": {"point": record(x=DIGIT, y=DIGIT)}, "type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 2},
    {"oneOf": [record(kind={"const": "cat"}, lives=DIGIT), record(kind={"const": "dog"}, name=STRING)]},
    {"type": "number", "minimum": -3, "exclusiveMaximum": 12, "multipleOf": 0.5},
    {"allOf": [{"type": "integer", "minimum": 10}, {"maximum": 20}]},
    {"type": "object", "properties": {"a": DIGIT, "b": DIGIT}, "additionalProperties": False},
    {"type": ["string", "null"], "maxLength": 3},
    {"const": {"a": [1, 2, {"b": None}]}},
]


def generated(rng, depth=0):
    """A small schema of which every text is short."""
    kinds = [STRING, DIGIT, {"type": "boolean"}, {"enum": rng.sample(["x", "yy", 1, 2.5, None, True], 3)}]
    if depth < 3:
        kinds += [
            record(**{f"k{i}": generated(rng, depth + 1) for i in range(rng.randrange(3))}),
            {"type": "array", "items": generated(rng, depth + 1), "maxItems": rng.randrange(3)},
            {"anyOf": [generated(rng, depth + 1), {"type": "null"}]},
        ]
    return rng.choice(kinds)


def engine(make_model, tokenizer, **how):
    return Engine(make_model(seq_len=CONTEXT), tokenizer, dtype=torch.float32, **how)


def answers(engine, grammars, *, n=1, max_tokens=400, prompt=PROMPT, **how):
    """(text, finish reason) of `n` answers for each grammar; all run together."""
    requests = [engine.add(prompt, Sampling(grammar=g, **how), max_tokens=max_tokens, n=n) for g in grammars]
    for _ in engine.finished():
        pass
    assert engine.blocks.free == engine.blocks.count
    return [[(engine.tokenizer.decode(row.made), row.finish) for row in request.rows] for request in requests]


@pytest.mark.parametrize(
    "how", [{"temperature": 1.0}, {"temperature": 0}, {"temperature": 1.5, "top_k": 3, "top_p": 0.9, "min_p": 0.01}]
)
def test_answers_are_valid_json_of_the_schema(make_model, tokenizer, how):
    rng = random.Random(4)
    schemas = [*SCHEMAS, *(generated(rng) for _ in range(25))]
    found = answers(engine(make_model, tokenizer), [Grammar.json_schema(schema) for schema in schemas], n=3, **how)
    for schema, texts in zip(schemas, found, strict=True):
        for text, finish in texts:
            assert finish == "stop", (schema, text)
            jsonschema.validate(json.loads(text), schema)


def test_a_json_object_is_complete_or_cut_off_by_the_limit(make_model, tokenizer):
    [texts] = answers(engine(make_model, tokenizer), [Grammar.json_object()], n=12, max_tokens=150)
    assert {finish for _, finish in texts} == {"stop", "length"}
    for text, finish in texts:
        if finish == "stop":
            assert isinstance(json.loads(text), dict)
        else:
            with pytest.raises(json.JSONDecodeError):
                json.loads(text)


def test_answers_match_the_regular_expression_and_are_among_the_choices(make_model, tokenizer):
    patterns = [r"[A-Z][a-z]{2,8} \d{4}-\d{2}", r"(foo|bar)(, (foo|bar)){0,3}\.", r"[^a-z]{1,5}", r"\p{Greek}{3}", r"x?y?"]
    choices = [["yes", "no"], ["a", "ab", "abc"], ["Ω <|bos|> \n", '"', "(.*)"]]
    found = answers(engine(make_model, tokenizer), [*map(Grammar.regex, patterns), *map(Grammar.choice, choices)], n=4)
    for pattern, texts in zip(patterns, found, strict=False):
        assert all(finish == "stop" and regex.fullmatch(pattern, text) for text, finish in texts), texts
    for allowed, texts in zip(choices, found[len(patterns) :], strict=True):
        assert all(finish == "stop" and text in allowed for text, finish in texts), texts


def test_batch_mates_are_as_they_are_alone(make_model, tokenizer):
    """Free rows beside constrained ones, and constrained ones beside others: same tokens, same log probabilities."""
    hows = [
        Sampling(seed=1, logprobs=2),
        Sampling(seed=2, grammar=Grammar.json_object(), logprobs=2),
        Sampling(temperature=0, logprobs=0),
        Sampling(seed=3, grammar=Grammar.regex("[ab]{20,30}"), top_k=5, repetition_penalty=1.2, logprobs=1),
        Sampling(temperature=0, grammar=Grammar.json_schema(SCHEMAS[0]), frequency_penalty=0.5),
    ]

    def run(hows):
        one = engine(make_model, tokenizer)
        requests = [one.add(PROMPT, how, max_tokens=40, n=2) for how in hows]
        drawn = {}
        while one.busy:
            for output in one.step():
                if output.token is not None:
                    logs = output.logprobs
                    key = (requests.index(output.row.request), output.row.index)
                    drawn.setdefault(key, []).append((output.token, logs and pytest.approx(logs.token, abs=1e-4)))
        return [(drawn[i, 0], drawn[i, 1]) for i in range(len(hows))]

    together = run(hows)
    for how, found in zip(hows, together, strict=True):
        assert run([how]) == [found]


def test_the_answer_keeps_its_place_in_the_grammar_when_it_is_preempted(make_model, tokenizer):
    grammars = [Grammar.regex("[ab]{60}"), Grammar.json_schema(SCHEMAS[0]), Grammar.json_object(), None] * 3
    plain = answers(engine(make_model, tokenizer), grammars, max_tokens=100)
    small = engine(make_model, tokenizer, cache_tokens=CONTEXT, max_rows=12)
    assert answers(small, grammars, max_tokens=100) == plain
    assert small.scheduler.preemptions > 0


def test_the_limit_of_tokens_and_the_end_of_the_answer(make_model, tokenizer):
    """An answer of exactly `max_tokens` tokens is complete; one token less and it is cut off."""
    one = engine(make_model, tokenizer)
    word = Grammar.regex("[ab]{7}")
    [[(text, finish)]] = answers(one, [word])
    length = len(tokenizer.encode(text))
    request = one.add(PROMPT, Sampling(grammar=word), max_tokens=400)
    for _ in one.finished():
        length = len(request.rows[0].made)
    assert finish == "stop"
    assert answers(one, [word], max_tokens=length) == [[(text, "stop")]]
    [[(cut, finish)]] = answers(one, [word], max_tokens=length - 1)
    assert finish == "length"
    assert text.startswith(cut)


def test_a_bias_cannot_bring_in_what_the_grammar_excludes(make_model, tokenizer):
    """Neither a tool call nor the end of the turn."""
    biased = {tokenizer.special(f"<|{name}|>"): 100.0 for name in ("python_start", "assistant_end", "bos")}
    [[(text, finish)]] = answers(engine(make_model, tokenizer), [Grammar.regex("[0-9]{5}")], logit_bias=biased)
    assert finish == "stop"
    assert regex.fullmatch("[0-9]{5}", text)


def test_a_graph_does_not_draw_for_a_row_with_a_grammar(make_model, tokenizer):
    one = engine(make_model, tokenizer)
    rows = [one.add(PROMPT, Sampling(grammar=g), max_tokens=1).rows[0] for g in (None, Grammar.json_object())]
    assert fits_graph(rows[:1])
    assert not fits_graph(rows)


def test_a_refused_grammar_leaves_the_engine_as_it_was(make_model, tokenizer):
    one = engine(make_model, tokenizer)
    with pytest.raises(GrammarError, match="unclosed group"):
        one.add(PROMPT, Sampling(grammar=Grammar.regex("(a")), max_tokens=5)
    assert not one.busy


def test_an_answer_that_cannot_go_on_ends_alone(make_model, tokenizer):
    """The bounds on work end a row with `error`; here its matcher fails by a token that does not fit."""
    one = engine(make_model, tokenizer)
    broken, other = (one.add(PROMPT, Sampling(grammar=Grammar.regex("[ab]{30}")), max_tokens=200) for _ in range(2))
    for _ in range(3):
        one.step()
    broken.rows[0].matcher.take(tokenizer.encode("!")[0])
    for _ in one.finished():
        pass
    assert broken.rows[0].finish == "error"
    assert regex.fullmatch("[ab]{30}", tokenizer.decode(other.rows[0].made))
    assert one.blocks.free == one.blocks.count
