"""The prompt of `nanochat chat`: questions, and commands that begin with a slash."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import closing, suppress

from rich.console import Console
from rich.text import Text

from client.conversation import Answer, Conversation
from client.errors import ApiError, ClientError
from client.inference import Calculation, ServedModel
from client.printable import clean, visible
from client.text import seconds

TOO_LONG = "context_length_exceeded"


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


SETTINGS: dict[str, Callable[[str], float | int]] = {
    "temperature": _number,
    "top_p": _number,
    "top_k": int,
    "seed": int,
    "max_tokens": int,
}
HELP = """\
/model [NAME]      show the models, or use another one
/system [TEXT]     set what the model reads before the conversation
/set [NAME VALUE]  set temperature, top_p, top_k, seed or max_tokens
/retry             answer the last question again
/reset             begin a new conversation
/help, /quit       or Ctrl-D to end; Ctrl-C stops an answer"""


class Repl:
    def __init__(self, talk: Conversation, out: Console):
        self.talk, self.out = talk, out
        self.commands: dict[str, Callable[[str], None]] = {
            "model": self._model,
            "system": self._system,
            "set": self._set,
            "retry": self._retry,
            "reset": self._reset,
            "help": lambda _: self._say(HELP),
        }

    def run(self) -> None:
        """Until Ctrl-D or /quit. An error is told, and the conversation goes on."""
        with suppress(ImportError):
            import readline  # noqa: F401  # input() then edits lines and remembers them
        self._greet()
        while (line := self._typed()) is not None:
            try:
                if line.startswith("/"):
                    if line in ("/quit", "/exit"):
                        return
                    name, _, rest = line[1:].partition(" ")
                    self.commands.get(name, self._unknown)(rest.strip())
                elif line:
                    self._ask(line)
            except ClientError as err:
                self._say(str(err), "red")

    def _typed(self) -> str | None:
        """The next line; None at the end. Ctrl-C empties the line, as in a shell."""
        while True:
            try:
                return input("you> ").strip()
            except EOFError:
                self.out.print()
                return None
            except KeyboardInterrupt:
                self._say("\nCtrl-D ends the conversation.")

    def _greet(self) -> None:
        used = next(filter(self.talk.uses, self.talk.inference.served()), None)
        self._say(f"{named(used)}. /help lists the commands." if used else "No model is loaded yet. /help lists the commands.")

    def _ask(self, question: str) -> None:
        try:
            self._print(question)
        except ApiError as err:
            if err.type != TOO_LONG or not self._drops():
                raise
            self.talk.sampling["truncate_prompt_tokens"] = -1
            self._print(question)

    def _drops(self) -> bool:
        self._say("The conversation is longer than the model's context.", "yellow")
        with suppress(EOFError, KeyboardInterrupt):
            return input("Leave out the oldest turns from now on? [Y/n] ").strip().lower() in ("", "y", "yes")
        return False

    def _print(self, question: str) -> None:
        with closing(self.talk.ask(question)) as pieces:
            try:
                for piece in pieces:
                    for calculation in piece.calculations:
                        self._say(calculated(calculation))
                    sys.stdout.write(visible(piece.text))
                    sys.stdout.flush()
            except KeyboardInterrupt:
                sys.stdout.write(" …")
        sys.stdout.write("\n")
        self._say(figures(self.talk.last))

    # -- commands --

    def _unknown(self, rest: str) -> None:
        self._say("There is no such command.\n" + HELP, "yellow")

    def _model(self, wanted: str) -> None:
        if not wanted:
            for model in self.talk.inference.served():
                self._say(("* " if self.talk.uses(model) else "  ") + named(model))
        elif (chosen := self.talk.choose(wanted)) is not None:
            self._say(f"{named(chosen)} answers from now on.")
        else:
            self._say(f"There is no model {wanted!r}; /model lists those there are.", "yellow")

    def _system(self, text: str) -> None:
        self.talk.system = text or None
        self._say("The model reads that before the conversation." if text else "The conversation has no system prompt.")

    def _set(self, rest: str) -> None:
        name, _, value = rest.partition(" ")
        if name in SETTINGS:
            try:
                self.talk.sampling[name] = SETTINGS[name](value)
            except ValueError:
                self._say(f"{value!r} is no value of {name}.", "yellow")
                return
        elif rest:
            self._say(f"There is no setting {name!r}: {', '.join(SETTINGS)}.", "yellow")
            return
        told = ", ".join(f"{name} {value}" for name, value in self.talk.sampling.items() if name in SETTINGS)
        self._say(told or "All settings are those of the server.")

    def _retry(self, rest: str) -> None:
        if (question := self.talk.take_back()) is None:
            self._say("There is no answer yet.", "yellow")
        else:
            self._ask(question)

    def _reset(self, rest: str) -> None:
        self.talk.turns.clear()
        self._say("A new conversation.")

    def _say(self, text: str, style: str = "dim") -> None:
        self.out.print(Text(text, style=style))


def named(model: ServedModel) -> str:
    """Which run and step a model is of, and its id."""
    of = " ".join(str(part) for part in (model.run_name, model.stage) if part)
    step = "" if model.step is None else f" step {model.step}"
    return clean(f"{of}{step} ({model.id})" if of else model.id)


def figures(answer: Answer) -> str:
    """What stands under an answer: tokens, speed, and why it ended early."""
    parts = []
    if answer.usage is not None:
        parts.append(f"{answer.usage.completion_tokens} tokens")
    if answer.tokens_per_s is not None:
        parts.append(f"{answer.tokens_per_s:.0f} tokens/s")
    if answer.first_token_s is not None:
        parts.append(f"first after {answer.first_token_s * 1000:.0f} ms")
    if answer.finish_reason == "length":
        parts.append("cut off at max_tokens or the end of the context")
    if not answer.text:
        parts.append("the model ended its turn without a word")
    return ", ".join(parts) or f"stopped after {seconds(answer.seconds)}"


def calculated(calculation: Calculation) -> str:
    return f"[{visible(calculation.code)} = {visible(calculation.output) or 'no result'}]"
