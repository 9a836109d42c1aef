"""The call of a client's function: the answer's text, split into the function's name and its arguments while it is written."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nanochat.engine.request import SAMPLED, Logprobs
from nanochat.tasks.calls import call_prefix
from nanochat.tokenizer import Tokenizer
from services.inference.text import AnswerText, Delta


class CallText:
    """Like AnswerText, for an answer with the grammar `Grammar.call`: a prefix, the arguments, and `}`."""

    def __init__(self, tokenizer: Tokenizer, functions: Sequence[str]):
        self._answer = AnswerText(tokenizer)
        self._names = {call_prefix(name): name for name in functions}
        self._head: str | None = ""  # the text so far; None once the name is known
        self.finished = False
        self._arguments, self._held = "", ""  # a final `}` is held back: it may be the one after the arguments

    def push(self, token: int, mask: int = SAMPLED, logprobs: Logprobs | None = None) -> Delta:
        delta = self._split(self._answer.push(token, mask, logprobs).text)
        self.finished = self._answer.finished
        return delta

    def flush(self) -> Delta:
        delta = self._split(self._answer.flush().text)
        if self._held and not _is_json(self._arguments):  # cut off in the middle
            delta.arguments += self._held
        return delta

    def _split(self, text: str) -> Delta:
        name = ""
        if self._head is not None:
            self._head += text
            prefix = next((prefix for prefix in self._names if self._head.startswith(prefix)), None)
            if prefix is None:
                return Delta()
            name, text, self._head = self._names[prefix], self._head[len(prefix) :], None
        text = self._held + text
        self._held = "}" if text.endswith("}") else ""
        new = text.removesuffix("}")
        self._arguments += new
        return Delta(call=name, arguments=new)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
