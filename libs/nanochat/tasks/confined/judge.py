"""The process of a test: runs it on the names of a program in another process.

The program sees neither the test's text nor what it expects, only the arguments of each call. It cannot report a verdict:
that is this process's.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

from nanochat.tasks.confined.operations import OPERATIONS
from nanochat.tasks.confined.wire import Channel, decode, encode, update


def run(test: bytes, channel: Channel) -> str:
    """Returns "ok" when program and test reach their last lines, otherwise "memory" or "error"."""
    try:
        end = channel.receive()["end"]
        if end != "ok":
            return "memory" if end == "memory" else "error"
        exec(compile(test, "test.py", "exec"), _Names(_Judge(channel)))
        return "ok"
    except BaseException as err:
        with contextlib.suppress(BaseException):
            traceback.print_exception(type(err), err, err.__traceback__ and err.__traceback__.tb_next)
        return "memory" if isinstance(err, MemoryError) else "error"
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()


class _Names(dict[str, Any]):
    """The test's own names; those that it lacks are the program's. Builtins are always the real ones."""

    def __init__(self, judge: _Judge) -> None:
        super().__init__()
        self._judge = judge

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return self._judge.named(name)


class _Judge:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._callbacks: list[Callable[..., Any]] = []
        self._exceptions: dict[int, type[BaseException]] = {}

    def named(self, name: str) -> Any:
        """Raises KeyError when the program has no such name."""
        return self._ask({"name": name})[0]

    def do(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Apply an operation to objects of the program. Raises what it raises there."""
        sent = [encode(item, self._keep) for item in args]
        named = {key: encode(item, self._keep) for key, item in kwargs.items()}
        value, after = self._ask({"do": operation, "args": sent, "kwargs": named})
        for old, new in zip(args[1:], after, strict=False):
            update(old, new)
        return value

    def _ask(self, request: dict[str, Any]) -> tuple[Any, list[Any]]:
        self._channel.send(request)
        while "call" in (answer := self._channel.receive()):
            self._channel.send(self._called(answer))
        if "raise" in answer:
            raise self._exception(answer)
        return decode(answer["value"], self._find), [decode(item, self._find) for item in answer.get("args", [])]

    def _called(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a program that calls a function of the test."""
        try:
            args = [decode(item, self._find) for item in request["args"]]
            kwargs = {key: decode(item, self._find) for key, item in request["kwargs"].items()}
            return {"value": encode(self._callbacks[request["call"]](*args, **kwargs), self._keep)}
        except Exception as err:
            base = next(kind for kind in type(err).__mro__ if getattr(builtins, kind.__name__, None) is kind)
            return {"raise": {"as": "builtin", "of": base.__name__}, "text": str(err)}

    def _exception(self, answer: dict[str, Any]) -> BaseException:
        kind, text = decode(answer["raise"], self._find), str(answer["text"])
        try:
            made = kind(text)
        except TypeError:  # UnicodeDecodeError, for one, takes five arguments
            made = RuntimeError(f"{kind.__name__}: {text}")
        return made if isinstance(made, BaseException) else RuntimeError(text)

    def _keep(self, value: Any) -> dict[str, Any]:
        if type(value) is Remote:
            return {"as": "kept", "of": object.__getattribute__(value, "_place")}
        if not callable(value):
            raise TypeError(f"a test can give a program plain data, functions and its own objects, not {type(value).__name__}")
        self._callbacks.append(value)
        return {"as": "callback", "of": len(self._callbacks) - 1}

    def _find(self, token: dict[str, Any]) -> Any:
        base = getattr(builtins, token["base"])
        if token["as"] == "object":
            return Remote(self, int(token["of"]), base)
        if token["of"] not in self._exceptions:
            if not issubclass(base, BaseException):
                raise TypeError(f"{base} is no exception")
            self._exceptions[token["of"]] = type(str(token["name"]), (base,), {})
        return self._exceptions[token["of"]]


class Remote:
    """An object of the program. Every operation on it is carried out there."""

    __slots__ = ("_base", "_judge", "_place")
    _base: type
    _judge: _Judge
    _place: int

    def __init__(self, judge: _Judge, place: int, base: type) -> None:
        for name, value in (("_judge", judge), ("_place", place), ("_base", base)):
            object.__setattr__(self, name, value)

    @property
    def __class__(self) -> type:
        """The builtin class that the object derives from, so that `isinstance` answers as it would there."""
        return type(self) if self._base is object else self._base

    @__class__.setter
    def __class__(self, _kind: type) -> None:
        raise TypeError("the class of a program's object cannot be set")


def _forwarded(name: str) -> Callable[..., Any]:
    def method(self: Remote, *args: Any, **kwargs: Any) -> Any:
        judge: _Judge = object.__getattribute__(self, "_judge")
        return judge.do(name, self, *args, **kwargs)

    return method


for _name in OPERATIONS:
    setattr(Remote, _name, _forwarded(_name))
