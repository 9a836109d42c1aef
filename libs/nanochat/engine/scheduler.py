"""Which rows the next step computes: continuous batching with chunked prefill, admission by cache space and preemption.

Every step first decodes all rows that are ready, then reads prompts with what is left of the step's budget of tokens, shared
equally among the rows whose prompts are being read: a long prompt delays the others by a chunk, never by its whole length.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from nanochat.engine.blocks import Blocks
from nanochat.engine.request import Request, Row


class Scheduler:
    """Requests wait in one queue for each key, and the keys take turns: many requests of one key do not starve another's.

    A request is admitted when the blocks for its prompt and one more token of each row are free. A row that later needs a block
    when none is free preempts the row admitted last, which starts over when there is room: its tokens are kept, and their keys
    and values are computed again.
    """

    def __init__(self, blocks: Blocks, *, max_rows: int, step_tokens: int):
        self.blocks, self.max_rows, self.step_tokens = blocks, max_rows, step_tokens
        self.running: list[Row] = []  # in the order of admission
        self.siblings: dict[Row, list[Row]] = {}  # rows of one request wait until its prompt has been read once
        self.preemptions = 0
        self._waiting: OrderedDict[str, deque[Request]] = OrderedDict()
        self._preempted: deque[Row] = deque()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._waiting.values()))

    @property
    def busy(self) -> bool:
        return bool(self.running or self._waiting or self._preempted)

    def add(self, request: Request) -> None:
        self._waiting.setdefault(request.key, deque()).append(request)

    def remove(self, request: Request) -> None:
        """Take out a request wherever it is and free its blocks."""
        queue = self._waiting.get(request.key)
        if queue is not None and request in queue:
            queue.remove(request)
            if not queue:
                del self._waiting[request.key]
        for row in request.rows:
            self.end(row)

    def end(self, row: Row) -> None:
        """Take out a row and free its blocks."""
        if row in self.running:
            self.running.remove(row)
        if row in self._preempted:
            self._preempted.remove(row)
        self.siblings.pop(row, None)
        self._drop(row)

    def decoding(self) -> list[Row]:
        """The rows that decode in this step, each with a block for its next position."""
        ready = [row for row in self.running if row.uncached == 1 and row.masks]
        for row in ready:
            if row in self.running:  # an earlier row may have preempted it
                self._grow(row, 1)
        return [row for row in ready if row in self.running]

    def prefilling(self, decoding: int) -> Iterator[tuple[Row, int]]:
        """The rows that read a part of their prompt in this step, and how many tokens of it. `decoding` rows have their turn."""
        self._admit()
        reading = [row for row in self.running if row.uncached > 1 or not row.masks]
        budget = max(self.step_tokens - decoding, len(reading), 1)
        for left in range(len(reading), 0, -1):
            row = reading[len(reading) - left]
            if row not in self.running:
                continue
            chunk = min(row.uncached, max(1, budget // left))
            budget -= chunk
            if self._grow(row, chunk):
                yield row, chunk

    def forked(self, row: Row) -> list[Row]:
        """The rows that share the prompt that `row` has just read: they hold its full blocks and a copy of the last one.

        The caller copies the content. A row for whose copy no block is free starts over later.
        """
        full = row.cached // self.blocks.size
        rest = row.cached % self.blocks.size > 0
        joined = []
        for other in self.siblings.pop(row, []):
            if rest and not self.blocks.free:
                self._preempted.append(other)
                continue
            self.blocks.share(row.blocks[:full])
            other.blocks, other.cached = row.blocks[:full], row.cached
            if rest:
                other.blocks.append(self.blocks.take())
            self.running.append(other)
            joined.append(other)
        return joined

    def _admit(self) -> None:
        while self._preempted and len(self.running) < self.max_rows:
            row = self._preempted[0]
            if self.blocks.free < self.blocks.needed(len(row.tokens)) + 1:
                return
            self._preempted.popleft()
            self._start(row)
        while self._waiting:
            key, queue = next(iter(self._waiting.items()))
            request = queue[0]
            rows = len(request.rows)
            tails = (rows - 1) * 2  # a copy of the prompt's last block and one more for each further row
            if len(self.running) + self._reserved() + rows > max(self.max_rows, rows):
                return
            if self.running and self.blocks.free < self.blocks.needed(len(request.prompt) + 1) + tails + self._tails():
                return
            queue.popleft()
            self._waiting.move_to_end(key)
            if not queue:
                del self._waiting[key]
            first, *others = request.rows
            if others:
                self.siblings[first] = others
            self._start(first)

    def _start(self, row: Row) -> None:
        """Begin reading a row's tokens, after those that known blocks already hold. The last token is always computed."""
        known = self.blocks.find(row.tokens[:-1])
        self.blocks.share(known)
        row.blocks, row.cached = known, len(known) * self.blocks.size
        self.running.append(row)

    def _grow(self, row: Row, tokens: int) -> bool:
        """Blocks for the row's next tokens, taken from rows admitted later if need be. False when the row itself gave way."""
        while len(row.blocks) < self.blocks.needed(row.cached + tokens):
            if not self.blocks.free:
                victim = self.running[-1]
                self._preempt(victim)
                if victim is row:
                    return False
                continue
            row.blocks.append(self.blocks.take())
        return True

    def _preempt(self, row: Row) -> None:
        self.preemptions += 1
        self.running.remove(row)
        self._drop(row)
        self._preempted.appendleft(row)

    def _drop(self, row: Row) -> None:
        self.blocks.release(row.blocks)
        row.blocks, row.cached = [], 0

    def _reserved(self) -> int:
        return sum(map(len, self.siblings.values()))

    def _tails(self) -> int:
        """Blocks promised to the rows that will join when a prompt has been read."""
        return 2 * self._reserved()
