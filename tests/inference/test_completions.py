"""POST /v1/completions by the official OpenAI client."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from nanochat.tokenizer import Tokenizer
from tests.inference.heart import COUNT, NUMBERS, SELF, SUM, SUMMED, WHO
from tests.inference.server import Server


def complete(server: Server, prompt: Any, **params: Any) -> Any:
    wanted = {"model": "default", "temperature": 0, "max_tokens": 12, **params}
    return server.openai().completions.create(prompt=prompt, **wanted)


def texts(answer: Any) -> list[str]:
    return [choice.text for choice in answer.choices]


def streamed(server: Server, prompt: Any, **params: Any) -> list[str]:
    pieces: dict[int, str] = {}
    for chunk in complete(server, prompt, stream=True, **params):
        assert chunk.object == "text_completion"
        for choice in chunk.choices:
            pieces[choice.index] = pieces.get(choice.index, "") + choice.text
    return [pieces[index] for index in sorted(pieces)]


def chat_tokens(tokenizer: Tokenizer, question: str) -> list[int]:
    return tokenizer.render_for_completion({"messages": [{"role": "user", "content": question}]})


def test_token_ids_of_a_conversation_are_answered(server: Server, tokenizer: Tokenizer) -> None:
    prompt = chat_tokens(tokenizer, WHO)
    answer = complete(server, prompt, max_tokens=100)
    assert (texts(answer), answer.choices[0].finish_reason) == ([SELF], "stop")
    assert (answer.object, answer.usage.prompt_tokens) == ("text_completion", len(prompt))


def test_the_calculator_stays_out_of_the_text(server: Server, tokenizer: Tokenizer) -> None:
    answer = complete(server, chat_tokens(tokenizer, SUM), max_tokens=100)
    assert texts(answer) == [SUMMED]
    assert answer.choices[0].model_extra["calculator"][0]["output"] == "19"


def test_a_text_begins_with_bos(server: Server, tokenizer: Tokenizer) -> None:
    text = "the quick brown"
    tokens = tokenizer.encode(text)

    def scores(prompt: Any, **params: Any) -> list[float]:
        return list(complete(server, prompt, echo=True, logprobs=0, max_tokens=1, **params).choices[0].logprobs.token_logprobs)

    with_bos = scores([tokenizer.bos, *tokens])[1 : len(tokens) + 1]
    assert scores(text)[: len(tokens)] == pytest.approx(with_bos, abs=0.05)
    assert complete(server, text).usage.prompt_tokens == len(tokens) + 1
    plain = {"extra_body": {"add_special_tokens": False}}
    assert scores(text, **plain)[1 : len(tokens)] == pytest.approx(scores(tokens)[1 : len(tokens)], abs=0.05)
    assert complete(server, text, **plain).usage.prompt_tokens == len(tokens)


def test_several_prompts_and_several_answers(server: Server, tokenizer: Tokenizer) -> None:
    prompts = [chat_tokens(tokenizer, question) for question in (WHO, COUNT, SUM)]
    answer = complete(server, prompts, n=2, max_tokens=100)
    assert texts(answer) == [SELF, SELF, NUMBERS, NUMBERS, SUMMED, SUMMED]
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage.prompt_tokens == sum(map(len, prompts))
    assert streamed(server, prompts, n=2, max_tokens=100) == texts(answer)


def test_several_texts_and_echo(server: Server, tokenizer: Tokenizer) -> None:
    [z] = tokenizer.encode("z")
    forced = {"logit_bias": {str(z): 100}, "max_tokens": 3}
    prompts = ["the quick", "spell"]
    assert texts(complete(server, prompts, **forced)) == ["zzz", "zzz"]
    expected = ["the quickzzz", "spellzzz"]
    assert texts(complete(server, prompts, echo=True, **forced)) == expected
    assert streamed(server, prompts, echo=True, **forced) == expected
    lists = [tokenizer.encode(prompt) for prompt in prompts]
    assert texts(complete(server, lists, echo=True, **forced)) == expected
    assert texts(complete(server, lists[1], echo=True, **forced)) == expected[1:]


def test_logprobs(server: Server, tokenizer: Tokenizer) -> None:
    choice = complete(server, chat_tokens(tokenizer, WHO), logprobs=2, max_tokens=100).choices[0]
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text
    assert told.text_offset == [len("".join(told.tokens[:i])) for i in range(len(told.tokens))]
    assert all(-0.7 < p <= 0 for p in told.token_logprobs)
    assert all(len(top) == 2 and token in top for token, top in zip(told.tokens, told.top_logprobs, strict=True))
    chunks = list(complete(server, chat_tokens(tokenizer, WHO), logprobs=2, max_tokens=100, stream=True))
    parts = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
    assert [token for part in parts for token in part.tokens] == told.tokens
    assert [offset for part in parts for offset in part.text_offset] == told.text_offset


def test_logprobs_of_an_echoed_prompt(server: Server, tokenizer: Tokenizer) -> None:
    """As evaluations ask for them: how likely the model finds a given answer."""
    question, answer = chat_tokens(tokenizer, WHO), tokenizer.encode(SELF)
    made = complete(server, question, logprobs=1, max_tokens=len(answer)).choices[0].logprobs
    choices = complete(server, [question + answer, [*question, 5, 6]], echo=True, logprobs=1, max_tokens=1, n=2).choices
    for choice in choices[:2]:
        told = choice.logprobs
        assert len(told.tokens) == len(told.token_logprobs) == len(question + answer), "the answer ends at once"
        assert (told.token_logprobs[0], told.top_logprobs[0]) == (None, None)
        given = told.token_logprobs[len(question) :]
        assert given == pytest.approx(made.token_logprobs, abs=0.05)
        assert told.tokens[len(question) :] == made.tokens
        assert "".join(told.tokens) == choice.text
    assert sum(choices[2].logprobs.token_logprobs[len(question) : len(question) + 2]) < -5, "nobody learnt to say that"
    text = complete(server, "the quick", echo=True, logprobs=0, max_tokens=3).choices[0]
    assert "".join(text.logprobs.tokens) == text.text
    assert text.logprobs.token_logprobs[0] < 0, "the first token comes after <|bos|>"
    server.wait_until_idle()


def test_no_token_at_all_reads_the_prompt_only(server: Server, tokenizer: Tokenizer) -> None:
    tokens = chat_tokens(tokenizer, WHO) + tokenizer.encode(SELF)
    answer = complete(server, [tokens, tokens[:1]], echo=True, logprobs=1, max_tokens=0)
    one = complete(server, tokens, echo=True, logprobs=1, max_tokens=1).choices[0]
    assert answer.choices[0].logprobs.token_logprobs[1:] == pytest.approx(one.logprobs.token_logprobs[1:], abs=0.05)
    assert [len(choice.logprobs.tokens) for choice in answer.choices] == [len(tokens), 1]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage.completion_tokens == 0
    assert texts(complete(server, "spell", echo=True, max_tokens=0)) == ["spell"]
    server.wait_until_idle()


def test_the_default_length_is_openais(server: Server) -> None:
    answer = server.openai().completions.create(model="default", prompt="la la la", logit_bias={"300": -100, "304": -100})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_stop_text_and_usage_in_a_stream(server: Server, tokenizer: Tokenizer) -> None:
    prompt = chat_tokens(tokenizer, WHO)
    *chunks, last = complete(server, prompt, max_tokens=100, stop="small", stream=True, stream_options={"include_usage": True})
    assert "".join(c.choices[0].text for c in chunks) == SELF.split("small")[0]
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert (last.choices, last.usage.prompt_tokens) == ([], len(prompt))
    server.wait_until_idle()


def test_a_prompt_that_is_too_long(server: Server) -> None:
    with pytest.raises(openai.BadRequestError, match=r"1024"):
        complete(server, [5] * 2000)
    answer = complete(server, [5] * 2000, extra_body={"truncate_prompt_tokens": 50})
    assert answer.usage.prompt_tokens == 50
    cut = complete(server, "abc " * 100, echo=True, extra_body={"truncate_prompt_tokens": 9}).choices[0].text
    assert len(cut) < 50
    assert cut.startswith(("a", "b", "c", " "))
    assert complete(server, [5] * 2000, extra_body={"truncate_prompt_tokens": -1}).usage.prompt_tokens == 1024 - 12


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [5, "a"]}, "prompt[1]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [-1]}, "prompt[0]"),
        ({"prompt": [309]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": ["a"] * 33}, "prompt"),
        ({"prompt": "a" * 32_001}, "prompt"),
        ({"suffix": "z"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"echo": True, "logprobs": 1, "stream": True}, "stream"),
        ({"messages": []}, "messages"),
        ({"max_tokens": 0, "stream": True}, "max_tokens"),
        ({"prompt": "", "add_special_tokens": False}, "prompt"),
    ],
)
def test_what_is_wrong_is_named(server: Server, change: dict[str, Any], param: str) -> None:
    response = server.http.post("/v1/completions", json={"prompt": "a", **change})
    assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text
