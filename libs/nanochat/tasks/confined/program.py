"""The process of a program: runs it, then answers what the judge asks about its names and objects."""

from __future__ import annotations

import builtins
import contextlib
import sys
import traceback
from typing import Any

from nanochat.tasks.confined.operations import OPERATIONS
from nanochat.tasks.confined.wire import Channel, decode, encode


def run(source: bytes, channel: Channel) -> None:
    """Raises EOFError when the judge has ended."""
    sys.argv[:] = ["program.py"]
    names: dict[str, Any] = {}
    end = _execute(source, names)
    _flush()
    channel.send({"end": end})
    _Program(names, channel).serve()


def _flush() -> None:
    """Before an answer is sent: the judge may end this process as soon as it has it."""
    with contextlib.suppress(Exception):
        sys.stdout.flush()


def _execute(source: bytes, names: dict[str, Any]) -> str:
    """Returns "ok" when the last line is reached, otherwise "memory" or "error" (exit calls included), the traceback on stderr."""
    try:
        exec(compile(source, "program.py", "exec"), names)  # as HumanEval does: `__name__` is not "__main__"
        return "ok"
    except BaseException as err:
        with contextlib.suppress(BaseException):
            traceback.print_exception(type(err), err, err.__traceback__ and err.__traceback__.tb_next)
            sys.stderr.flush()
        return "memory" if isinstance(err, MemoryError) else "error"


class _Program:
    def __init__(self, names: dict[str, Any], channel: Channel) -> None:
        self._names, self._channel = names, channel
        self._kept: list[Any] = []  # objects that the judge knows by their place here
        self._places: dict[int, int] = {}

    def serve(self) -> None:
        while True:
            request = self._channel.receive()
            answer = self._answer(request)
            _flush()
            self._channel.send(answer)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "name" in request:
                return {"value": encode(self._names[request["name"]], self._keep)}
            args = [decode(item, self._find) for item in request["args"]]
            kwargs = {key: decode(item, self._find) for key, item in request["kwargs"].items()}
            value = OPERATIONS[request["do"]](*args, **kwargs)
            answer = {"value": encode(value, self._keep)}
            # What the program changed in its arguments, the caller sees, as in one process.
            if any(isinstance(item, list | dict) for item in request["args"]):
                answer["args"] = [encode(item, self._keep) for item in args[1:]]
            return answer
        except BaseException as err:
            text = ""
            with contextlib.suppress(BaseException):
                text = str(err)
            return {"raise": encode(type(err), self._keep), "text": text}

    def _keep(self, value: Any) -> dict[str, Any]:
        place = self._places.setdefault(id(value), len(self._kept))
        if place == len(self._kept):
            self._kept.append(value)
        kind = value if isinstance(value, type) else type(value)
        base = next(parent.__name__ for parent in kind.__mro__ if getattr(builtins, parent.__name__, None) is parent)
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"as": "exception", "of": place, "name": value.__name__, "base": base}
        return {"as": "object", "of": place, "base": "type" if isinstance(value, type) else base}

    def _find(self, token: dict[str, Any]) -> Any:
        if token["as"] == "kept":
            return self._kept[token["of"]]
        number = token["of"]

        def callback(*args: Any, **kwargs: Any) -> Any:
            """A function of the test that was passed to the program."""
            mine = [encode(item, self._keep) for item in args]
            self._channel.send({"call": number, "args": mine, "kwargs": {k: encode(v, self._keep) for k, v in kwargs.items()}})
            answer = self._channel.receive()
            if "raise" in answer:
                raise decode(answer["raise"], self._find)(answer["text"])
            return decode(answer["value"], self._find)

        return callback
