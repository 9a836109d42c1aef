"""Rows of a user's conversations in the forms that people have: OpenAI's `messages`, ShareGPT and Alpaca.

Each becomes turns that alternate and begin with the user's, as the model is trained on them. A call of the model's own tool
becomes a `python` part and its result a `python_output` part of the same answer. Any other call is text as the model writes it
when it is served, and its result is the user's next turn. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from nanochat.tasks.base import Conversation, Message, Part
from nanochat.tasks.calls import JOIN, call_text

Form = Literal["messages", "sharegpt", "alpaca"]

EXPECTED = (
    'each line is {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}, '
    '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]} or {"instruction": "…", "output": "…"}'
)

Role = Literal["system", "user", "assistant", "tool", "call"]
ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "chatgpt", "bing", "bard"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation"), "tool"),
    "function_call": "call",
}
OWN_TOOLS = ("python", "calculator", "code_interpreter")  # what the engine itself runs
PARTS = ("text", "python", "python_output")
_TEXT_PARTS = ("text", "input_text", "output_text")


class NotAConversation(ValueError):
    """Why a row cannot be trained on, in words for the person who made it."""


def conversation_of(row: Any) -> tuple[Form, Conversation]:
    """The form of a row and its conversation. Raises NotAConversation."""
    form, messages, first = _messages(row)
    turns: list[Message] = []
    open_calls = 0  # calls of our own tool whose results are yet to come
    waiting = False  # whether the result of another function may come
    for number, message in enumerate(messages, start=first):
        role = _role(message, number)
        if open_calls and role != "tool":
            raise NotAConversation(f"message {number} comes before the result of the tool that the message before it calls")
        if role == "system":
            if turns:
                raise NotAConversation(f"message {number} is a system message; only the first message can be one")
            turns.append({"role": "system", "content": _text(message, number)})
        elif role == "user":
            _expect(turns, "user", number)
            turns.append({"role": "user", "content": _text(message, number)})
        elif role == "tool" and open_calls:
            open_calls -= 1
            _answer(turns).append({"type": "python_output", "text": _text(message, number)})
        elif role == "tool":
            if not waiting:
                raise NotAConversation(f"message {number} is the result of a tool that no message before it calls")
            _add_result(turns, _text(message, number))
        else:
            own, others = _calls(message, number, role)
            if not _ends_with_output(turns):
                _expect(turns, "assistant", number)
                turns.append({"role": "assistant", "content": []})
                if message.get("weight") == 0:
                    turns[-1]["weight"] = 0
            if role == "assistant":
                _answer(turns).extend(_parts(message, number, bool(own or others)))
            _answer(turns).extend({"type": "python", "text": code} for code in own)
            _answer(turns).extend(_written(turns, others))
            open_calls, waiting = len(own), bool(others)
    if open_calls:
        raise NotAConversation("it ends with the call of a tool whose result is missing")
    if not any(turn["role"] == "assistant" for turn in turns):
        raise NotAConversation("it has no answer of the assistant" if turns else "it has no message")
    return form, {"messages": [_plain(turn) for turn in turns]}


def _messages(row: Any) -> tuple[Form, list[dict[str, Any]], int]:
    """The form of a row, its messages as objects, and the number of the first. Raises NotAConversation."""
    if isinstance(row, dict) and "instruction" in row:
        return "alpaca", _alpaca(row), 1
    form: Form = "messages"
    messages = row
    if isinstance(row, dict):
        form = "messages" if "messages" in row else "sharegpt"
        messages = row.get("messages", row.get("conversations"))
    if not isinstance(messages, list):
        raise NotAConversation("it is no list of messages and has none of the fields messages, conversations and instruction")
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict):
            raise NotAConversation(f"message {number} is {_kind(message)}, not an object with a role and a content")
    system = row.get("system") if isinstance(row, dict) else None
    if system:
        return form, [{"role": "system", "content": system}, *messages], 0
    return form, messages, 1


def _alpaca(row: dict[str, Any]) -> list[dict[str, Any]]:
    history = row.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise NotAConversation("its history is no list of pairs of a question and an answer")
    said = [message for asked, answered in history for message in _pair(asked, answered)]
    asked = _field(row, "instruction")
    if row.get("input"):
        asked = f"{asked}{JOIN}{_field(row, 'input')}"
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return [*system, *said, *_pair(asked, _field(row, "output"))]


def _pair(asked: Any, answered: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _field(row: dict[str, Any], name: str) -> str:
    if not isinstance(row.get(name), str):
        raise NotAConversation(f"its {name} is {_kind(row.get(name))}, not a text")
    return str(row[name])


def _role(message: Mapping[str, Any], number: int) -> Role:
    name = message.get("role", message.get("from"))
    if not isinstance(name, str) or name not in ROLES:
        raise NotAConversation(f"message {number} is from {name!r}; known are {', '.join(ROLES)}")
    return ROLES[name]


def _calls(message: Mapping[str, Any], number: int, role: Role) -> tuple[list[str], list[str]]:
    """The calls of a message: code for our own tool, and the texts of calls of other functions."""
    own: list[str] = []
    others: list[str] = []
    for name, arguments in _named_calls(message, number, role):
        code = _code(arguments) if name in OWN_TOOLS else None
        if code is not None:
            own.append(code)
        else:
            others.append(call_text(name, arguments))
    if own and others:
        raise NotAConversation(f"message {number} calls our own tool and other functions at once")
    return own, others


def _named_calls(message: Mapping[str, Any], number: int, role: Role) -> Iterator[tuple[str, str]]:
    """(name, arguments as JSON text) of every call in a message."""
    found: list[Any] = []
    if role == "call":
        found = [_json(_text(message, number))]
    elif role == "assistant":
        calls = message.get("tool_calls") or []
        if not isinstance(calls, list):
            raise NotAConversation(f"the calls of message {number} are {_kind(calls)}, not a list")
        found = [call.get("function") if isinstance(call, dict) else call for call in calls]
        if message.get("function_call"):
            found.append(message["function_call"])
    for call in found:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
            raise NotAConversation(f"message {number} has a call without a name and arguments")
        arguments = call["arguments"]
        if not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        if call["name"] not in OWN_TOOLS and not isinstance(_json(arguments), dict):
            raise NotAConversation(f"message {number} calls {call['name']} with arguments that are no JSON object")
        yield call["name"], arguments


def _code(arguments: str) -> str | None:
    """The code that a call of our own tool runs: its only argument, or the arguments if they are no JSON object."""
    value = _json(arguments)
    if not isinstance(value, dict):
        return value if isinstance(value, str) else arguments
    texts = list(value.values())
    return texts[0] if len(texts) == 1 and isinstance(texts[0], str) else None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _parts(message: Mapping[str, Any], number: int, has_calls: bool) -> list[Part]:
    """What an assistant's message says, without its calls."""
    content = message.get("content", message.get("value"))
    if has_calls and not content:
        return []
    if isinstance(content, list) and any(isinstance(part, dict) and part.get("type") in PARTS[1:] for part in content):
        return [_part(part, number) for part in content]
    return [{"type": "text", "text": _text(message, number)}]


def _part(part: Any, number: int) -> Part:
    if not isinstance(part, dict) or part.get("type") not in PARTS:
        raise NotAConversation(f"message {number} has a part that is none of {', '.join(PARTS)}")
    return {"type": part["type"], "text": _checked(part.get("text"), number)}


def _text(message: Mapping[str, Any], number: int) -> str:
    """The content of a message; a list of text parts is joined."""
    content = message.get("content", message.get("value"))
    if not isinstance(content, list):
        return _checked(content, number)
    texts: list[str] = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
            kind = f"type {part['type']!r}" if isinstance(part, dict) and "type" in part else _kind(part)
            raise NotAConversation(f"the content of message {number} has a part of {kind}; the model reads text only")
        texts.append(_checked(part.get("text"), number))
    return "".join(texts)


def _checked(text: Any, number: int) -> str:
    if not isinstance(text, str):
        raise NotAConversation(f"the content of message {number} is {_kind(text)}, not a text")
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise NotAConversation(
            f"the content of message {number} has half a character (U+{ord(text[err.start]):04X}) at position {err.start}"
        ) from None
    return text


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), "a number")


def _expect(turns: Sequence[Message], role: Literal["user", "assistant"], number: int) -> None:
    """Raises NotAConversation unless it is the turn of `role`."""
    last = turns[-1]["role"] if turns else "system"
    if last == role:
        raise NotAConversation(f"message {number} is from {role!r}, as the one before it; user and assistant take turns")
    if role == "assistant" and last == "system":
        raise NotAConversation(f"message {number} is from 'assistant', and no question is before it")


def _answer(turns: Sequence[Message]) -> list[Part]:
    """The parts of the answer that is being put together."""
    content = turns[-1]["content"]
    assert isinstance(content, list)
    return content


def _ends_with_output(turns: Sequence[Message]) -> bool:
    content = turns[-1]["content"] if turns else ""
    return isinstance(content, list) and bool(content) and content[-1]["type"] == "python_output"


def _add_result(turns: list[Message], text: str) -> None:
    """Add the result of a function's call, which the model reads as the user's turn."""
    if turns[-1]["role"] == "user":  # results of several calls share a turn
        text = f"{turns.pop()['content']}{JOIN}{text}"
    turns.append({"role": "user", "content": text})


def _written(turns: Sequence[Message], calls: Sequence[str]) -> Iterator[Part]:
    """Calls as text after what was said; a blank line is between them, as when a client sends such an answer back."""
    said = bool(_answer(turns))
    for call in calls:
        yield {"type": "text", "text": f"{JOIN}{call}" if said else call}
        said = True


def _plain(turn: Message) -> Message:
    """An answer of nothing but text as one string."""
    content = turn["content"]
    if isinstance(content, list) and all(part["type"] == "text" for part in content):
        return {**turn, "content": "".join(part["text"] for part in content)}
    return turn
