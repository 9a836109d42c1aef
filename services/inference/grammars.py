"""Tries each new grammar in a child process before the engine sees it: a grammar may be made to take all time or memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import OrderedDict
from dataclasses import asdict

from nanochat.grammar import Grammar
from services.inference.errors import ApiError
from services.inference.schemas.structured import Structured

REMEMBERED = 256
PATIENCE_S = 20.0  # the child bounds its own CPU time to 2 s; other processes may keep it waiting
LINE_BYTES = 1 << 20


class GrammarTrial:
    """Remembers what was found, so that only the first request with a grammar waits: about 1 ms, the very first one 0.3 s."""

    def __init__(self) -> None:
        self._known: OrderedDict[Grammar, str | None] = OrderedDict()
        self._child: Process | None = None
        self._turn = asyncio.Lock()

    async def check(self, body: Structured) -> None:
        """Raises ApiError 400 that names the parameter if the request's grammar cannot be used."""
        if body.constraint is None:
            return
        param, grammar = body.constraint
        if grammar not in self._known:
            async with self._turn:
                if grammar not in self._known:
                    self._known[grammar] = await self._tried(grammar)
                    if len(self._known) > REMEMBERED:
                        self._known.popitem(last=False)
        error = self._known[grammar]
        if error is not None:
            raise ApiError(400, f"{param}: {error}.", param=param, code="invalid_value")

    async def close(self) -> None:
        """End the child process, if there is one."""
        if (child := self._forgotten()) is not None:
            await child.wait()

    def _forgotten(self) -> Process | None:
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        return child

    async def _tried(self, grammar: Grammar) -> str | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                child = await self._running()
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(json.dumps(asdict(grammar)).encode() + b"\n")
                await child.stdin.drain()
                answer = await child.stdout.readline()
        except (TimeoutError, OSError):
            answer = b""
        except BaseException:
            self._forgotten()  # its answer would be read as that to the next grammar
            raise
        if answer:
            error: str | None = json.loads(answer)
            return error
        await self.close()
        return "the grammar takes too much time or memory to compile; make it simpler"

    async def _running(self) -> Process:
        if self._child is None or self._child.returncode is not None:
            command = (sys.executable, "-m", "nanochat.grammar.trial")
            self._child = await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, limit=LINE_BYTES
            )
        return self._child
