"""A user's rows in every form that people have them in, and what is refused."""

import json
from typing import Any

import pytest

from nanochat.tasks.base import Message
from nanochat.tasks.formats import NotAConversation, conversation_of
from nanochat.tokenizer import Tokenizer
from services.inference.schemas.messages import ChatMessage, turns

USER = {"role": "user", "content": "What is 2+3?"}
ANSWER = {"role": "assistant", "content": "5"}
TWO: list[Message] = [{"role": "user", "content": "What is 2+3?"}, {"role": "assistant", "content": "5"}]


def messages(row: Any) -> list[Message]:
    return conversation_of(row)[1]["messages"]


def call(name: str, arguments: Any) -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("form", "row"),
    [
        ("messages", [USER, ANSWER]),
        ("messages", {"messages": [USER, ANSWER], "tools": [], "source": "me"}),
        ("messages", {"messages": [{**USER, "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2+3?"}]}, ANSWER]}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "What is 2+3?"}, {"from": "gpt", "value": "5"}]}),
        ("sharegpt", {"conversations": [USER, ANSWER]}),
        ("alpaca", {"instruction": "What is 2+3?", "input": "", "output": "5"}),
    ],
)  # fmt: skip
def test_each_form_becomes_the_same_conversation(form: str, row: Any) -> None:
    assert conversation_of(row) == (form, {"messages": TWO})


def test_alpacas_input_follows_the_instruction_and_its_history_comes_before() -> None:
    row = {"instruction": "Add.", "input": "2, 3", "output": "5", "system": "Be short.", "history": [["Hi", "Ho"]]}
    assert [m["content"] for m in messages(row)] == ["Be short.", "Hi", "Ho", "Add.\n\n2, 3", "5"]


@pytest.mark.parametrize("name", ["system", "developer"])
def test_a_system_message_may_come_first(name: str) -> None:
    assert messages([{"role": name, "content": "Be short."}, USER, ANSWER]) == [
        {"role": "system", "content": "Be short."},
        *TWO,
    ]
    row = {"system": "Be short.", "conversations": [{"from": "human", "value": "What is 2+3?"}, {"from": "gpt", "value": "5"}]}
    assert messages(row)[0] == {"role": "system", "content": "Be short."}


@pytest.mark.parametrize("arguments", ['{"code": "2+3"}', {"expression": "2+3"}, "2+3", '"2+3"'])
def test_a_call_of_our_own_tool_and_its_result_are_one_answer(arguments: Any) -> None:
    row = [
        USER,
        {"role": "assistant", "content": "I compute it. ", "tool_calls": [call("python", arguments)]},
        {"role": "tool", "tool_call_id": "1", "content": "5"},
        {"role": "assistant", "content": "It is 5."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "Bye"},
    ]
    assert messages(row)[1:3] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I compute it. "},
                {"type": "python", "text": "2+3"},
                {"type": "python_output", "text": "5"},
                {"type": "text", "text": "It is 5."},
            ],
        },
        {"role": "user", "content": "Thanks"},
    ]


def test_a_call_of_another_function_is_written_as_the_server_writes_it() -> None:
    row = [
        {"role": "user", "content": "How warm is it in Rome and Oslo?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("weather", '{"city": "Rome"}'), call("weather", '{"city": "Oslo"}')],
        },
        {"role": "tool", "content": "31"},
        {"role": "tool", "content": "12"},
        {"role": "assistant", "content": "31 and 12 degrees."},
    ]
    served = turns([ChatMessage.model_validate(message) for message in row])
    assert messages(row) == served
    assert served[1]["content"].startswith('{"name": "weather", "arguments": {"city": "Rome"}}')


def test_sharegpts_calls_are_read() -> None:
    said = [("human", "2+3?"), ("function_call", '{"name": "calculator", "arguments": {"expression": "2+3"}}')]
    said += [("observation", "5"), ("gpt", "5.")]
    row = {"conversations": [{"from": name, "value": value} for name, value in said]}
    assert [part["type"] for part in messages(row)[1]["content"]] == ["python", "python_output", "text"]


def test_our_own_parts_are_kept() -> None:
    parts = [{"type": "python", "text": "2+3"}, {"type": "python_output", "text": "5"}, {"type": "text", "text": "5"}]
    assert messages([USER, {"role": "assistant", "content": parts}])[1]["content"] == parts


def test_an_answer_of_weight_0_is_read_but_not_learned(tokenizer: Tokenizer) -> None:
    row = {
        "messages": [
            USER,
            {**ANSWER, "weight": 0},
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "So."},
        ]
    }
    ids, mask = tokenizer.render({"messages": messages(row)}, 1000)
    learned = tokenizer.decode([token for token, trained in zip(ids, mask, strict=True) if trained])
    assert learned == "So.<|assistant_end|>"


WRONG: dict[str, tuple[Any, str]] = {
    "a number": (3, "no list of messages"),
    "another object": ({"prompt": "x"}, "none of the fields messages, conversations and instruction"),
    "no message": ([], "it has no message"),
    "a text as message": (["hi", "ho"], "message 1 is a text, not an object"),
    "no answer": ([USER], "no answer of the assistant"),
    "two users": ([USER, USER, ANSWER], "message 2 is from 'user', as the one before it"),
    "two answers": ([USER, ANSWER, ANSWER], "message 3 is from 'assistant', as the one before it"),
    "an answer first": ([ANSWER, USER], "message 1 is from 'assistant', and no question is before it"),
    "a late system message": ([USER, ANSWER, {"role": "system", "content": "x"}], "message 3 is a system message"),
    "an unknown role": ([{"role": "narrator", "content": "x"}], "message 1 is from 'narrator'"),
    "no role": ([{"content": "x"}], "message 1 is from None"),
    "null": ([USER, {"role": "assistant", "content": None}], "content of message 2 is null, not a text"),
    "no content": ([{"role": "user"}, ANSWER], "content of message 1 is null, not a text"),
    "a number as content": ([USER, {"role": "assistant", "content": 3}], "content of message 2 is a number, not a text"),
    "an object as content": ([USER, {"role": "assistant", "content": {"a": 1}}], "content of message 2 is an object"),
    "an image": ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER], "a part of type 'image_url'"),
    "a text in a list": ([{"role": "user", "content": ["hi"]}, ANSWER], "message 1 has a part of a text"),
    "null in a part": ([{"role": "user", "content": [{"type": "text", "text": None}]}, ANSWER], "message 1 is null, not a text"),
    "half a character": ([{"role": "user", "content": "a\ud83d"}, ANSWER], r"half a character \(U\+D83D\) at position 1"),
    "a result that nobody asked for": ([USER, ANSWER, {"role": "tool", "content": "5"}], "message 3 is the result of a tool"),
    "a call without a result": ([USER, {"role": "assistant", "tool_calls": [call("python", "1")]}], "whose result is missing"),
    "a result too late": (
        [USER, {"role": "assistant", "tool_calls": [call("python", "1")]}, USER, ANSWER],
        "message 3 comes before the result",
    ),
    "a call without arguments": ([USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], "call without a name"),
    "arguments that are no object": ([USER, {"role": "assistant", "tool_calls": [call("f", "[1]")]}], "no JSON object"),
    "both kinds of calls": ([USER, {"role": "assistant", "tool_calls": [call("f", {}), call("python", "1")]}], "at once"),
    "calls that are no list": ([USER, {"role": "assistant", "content": "x", "tool_calls": 3}], "calls of message 2 are a number"),
    "an instruction of null": ({"instruction": None, "output": "x"}, "its instruction is null"),
    "no output": ({"instruction": "x"}, "its output is null"),
    "an input of 3": ({"instruction": "x", "input": 3, "output": "y"}, "its input is a number"),
    "a broken history": ({"instruction": "x", "output": "y", "history": ["a"]}, "history"),
    "a system message of 3": ({"system": 3, "messages": [USER, ANSWER]}, "content of message 0 is a number"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_no_conversation_is_refused_in_words(row: Any, problem: str) -> None:
    with pytest.raises(NotAConversation, match=problem):
        conversation_of(row)


@pytest.mark.parametrize("value", [None, True, 3, 1.5, "x", [], {}, [[]], [{}], {"a": None}])
@pytest.mark.parametrize("field", ["role", "content", "tool_calls", "function_call", "weight"])
def test_no_json_value_in_any_field_ends_in_anything_but_a_refusal(field: str, value: Any) -> None:
    for row in (
        [{**USER, field: value}, ANSWER],
        [USER, {**ANSWER, field: value}],
        [{**USER, field: value}, {**ANSWER, field: value}],
    ):
        try:
            _, conversation = conversation_of(json.loads(json.dumps(row)))
        except NotAConversation:
            continue
        for message in conversation["messages"]:
            content = message["content"]
            texts = [content] if isinstance(content, str) else [part["text"] for part in content]
            assert all(isinstance(text, str) for text in texts)
