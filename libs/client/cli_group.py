"""Groups of commands. An option of a command that is given before it is refused with the line that was meant."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup


class Group(TyperGroup):
    """`nanochat --context lab ps` is refused, and told to be `nanochat ps --context lab`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # typer keeps click's Context private
        if not ctx.resilient_parsing and (meant := self._meant(args)):
            ctx.fail(f"{args[0].partition('=')[0]} comes after the command: {ctx.command_path} {shlex.join(meant)}")
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def _meant(self, args: list[str]) -> list[str]:
        """The arguments with the first options behind the command; empty if they are not options of a command."""
        if not args or args[0].partition("=")[0] in {name for own in self.params for name in own.opts}:
            return []
        known = {name: option for command in self.commands.values() for option in _options(command) for name in option.opts}
        at = 0
        while at < len(args) and (option := known.get(args[at].partition("=")[0])) is not None:
            at += 1 if "=" in args[at] or option.is_flag else 2
        before, behind = args[:at], args[at:]
        if not before:
            return []
        command = self.commands.get(behind[0]) if behind else None
        if command is None:
            return ["COMMAND", *before]
        taken = {name for option in _options(command) for name in option.opts}
        return [*behind, *before] if before[0].partition("=")[0] in taken else []


def _options(command: Any) -> Iterator[Any]:
    """The options of a command, or of all commands of a group."""
    yield from (parameter for parameter in command.params if parameter.param_type_name == "option")
    for one in getattr(command, "commands", {}).values():
        yield from _options(one)
