"""One stream of items out of several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def merged(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[tuple[int, T]]:
    """The items of all streams in the order in which they arrive, each with the number of its stream. Closes the streams."""
    waiting: dict[asyncio.Future[T], int] = {}
    try:
        if len(streams) == 1:  # most requests; saves a task for each item
            async for item in streams[0]:
                yield 0, item
            return
        waiting = {asyncio.ensure_future(anext(stream)): i for i, stream in enumerate(streams)}
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                i = waiting.pop(future)
                try:
                    item = future.result()
                except StopAsyncIteration:
                    continue
                yield i, item
                waiting[asyncio.ensure_future(anext(streams[i]))] = i
    finally:
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
