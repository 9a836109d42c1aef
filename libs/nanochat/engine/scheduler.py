"""Choose the rows of the next step: continuous batching with chunked prefill, admission by cache space, and preemption.

Every step first decodes all rows that are ready. The rest of its budget of tokens is divided among the rows whose prompts are
being read, in chunks that are large enough to be worth a pass through the model. So a long prompt delays the other rows only by
a chunk at a time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator

from nanochat.engine.blocks import Blocks
from nanochat.engine.budget import Budget
from nanochat.engine.request import Request, Row


class Scheduler:
    """Requests wait in one queue per key, and the keys take turns, those without a row first: many requests of one key do not
    starve another key.

    A step reads `budget.step` tokens of prompts, or `budget.idle` when no row decodes and so none has to wait.

    A request is admitted when there are free blocks for its prompt and one more token of each row. When all rows are taken, a key
    that has none gets those of the key with most: a short request does not wait until a long answer ends. If a row later needs a block
    and none is free, it preempts the row that was admitted last. A preempted row keeps its tokens; their keys and values are
    computed again when there is room.
    """

    def __init__(self, blocks: Blocks, budget: Budget, *, max_rows: int):
        self.blocks, self.budget, self.max_rows = blocks, budget, max_rows
        self.running: list[Row] = []  # in the order of admission
        self.siblings: dict[Row, list[Row]] = {}  # first row -> other rows, which wait until the first has read the prompt
        self.preemptions = 0
        self.prefix_hits = self.prefix_queries = 0  # tokens found in the cache, and tokens looked for
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
        """Remove a request in any state, and free its blocks."""
        queue = self._waiting.get(request.key)
        if queue is not None and request in queue:
            queue.remove(request)
            if not queue:
                del self._waiting[request.key]
        for row in request.rows:
            self.end(row)

    def end(self, row: Row) -> None:
        """Remove a row and free its blocks."""
        if row in self.running:
            self.running.remove(row)
        if row in self._preempted:
            self._preempted.remove(row)
        self.siblings.pop(row, None)
        self._drop(row)

    def decoding(self) -> list[Row]:
        """Return the rows that decode in this step. Each has a block for its next position."""
        ready = [row for row in self.running if row.uncached == 1 and row.started and row.drawable]
        for row in ready:
            if row in self.running:  # an earlier row may have preempted it
                self._grow(row, 1)
        return [row for row in ready if row in self.running]

    def prefilling(self, decoding: int) -> Iterator[tuple[Row, int]]:
        """Yield each row that reads a part of its prompt in this step, with the number of tokens to read.

        `decoding` is the number of rows that decode in this step.
        """
        self._admit()
        reading = [row for row in self.running if row.uncached > 1 or not row.started]
        # The oldest one always makes progress; of the others a short prompt does not wait for long ones.
        reading[1:] = sorted(reading[1:], key=lambda row: row.uncached)
        least = self.budget.chunk
        budget = max(self.budget.step - decoding, least) if decoding else self.budget.idle
        for left in range(len(reading), 0, -1):
            row = reading[len(reading) - left]
            if row not in self.running:
                continue
            wanted = min(row.uncached, max(least, budget // left))
            chunk = min(wanted, budget)
            if chunk <= 0 or (self.budget.even and chunk < wanted):
                return
            budget -= chunk
            if self._grow(row, chunk):
                yield row, chunk

    def forked(self, row: Row) -> list[Row]:
        """Start the rows that share the prompt which `row` has just read, and return them.

        They share its full blocks. If its last block is not full, each gets a new block for a copy, whose content the caller
        copies. If no block is free for the copy, a row starts from the beginning later.
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
            if self.running and self.blocks.free < self.blocks.needed(len(row.tokens)) + 1:
                return
            self._preempted.popleft()
            self._start(row)
        while self._waiting:
            served = {row.request.key for row in self.running}
            key = next((key for key in self._waiting if key not in served), next(iter(self._waiting)))
            queue = self._waiting[key]
            request = queue[0]
            rows = len(request.rows)
            tails = (rows - 1) * 2  # for each further row: a copy of the prompt's last block, and one more block
            if self.running and self.blocks.free < self.blocks.needed(len(request.prompt) + 1) + tails + self._tails():
                return
            if len(self.running) + self._reserved() + rows > max(self.max_rows, rows) and not self._make_way(key, rows):
                return
            queue.popleft()
            self._waiting.move_to_end(key)
            if not queue:
                del self._waiting[key]
            first, *others = request.rows
            if others:
                self.siblings[first] = others
            self._start(first)

    def _make_way(self, key: str, rows: int) -> bool:
        """Preempt the newest rows of the key that has most of them, if `key` has none and would not get more than that key keeps.

        Their blocks stay in the cache until others need them, so little is computed again.
        """
        held = Counter(row.request.key for row in self.running)
        if key in held or not held:
            return False
        richest, count = held.most_common(1)[0]
        if count < 2 * rows or self._reserved():
            return False
        for row in [row for row in self.running if row.request.key == richest][-rows:]:
            self._preempt(row)
        return True

    def _start(self, row: Row) -> None:
        """Start to read a row's tokens after those in remembered blocks. The last token is always computed."""
        known = self.blocks.find(row.tokens[:-1])
        self.prefix_hits += len(known) * self.blocks.size
        self.prefix_queries += len(row.tokens)
        self.blocks.share(known)
        row.blocks, row.cached = known, len(known) * self.blocks.size
        self.running.append(row)

    def _grow(self, row: Row, tokens: int) -> bool:
        """Give the row blocks for its next tokens, if necessary by preempting rows that were admitted later.

        Returns False when the row itself was preempted.
        """
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
        row.epoch += 1
        row.pending = 0
        self._preempted.appendleft(row)

    def _drop(self, row: Row) -> None:
        self.blocks.release(row.blocks)
        row.blocks, row.cached, row.remembered = [], 0, 0

    def _reserved(self) -> int:
        return sum(map(len, self.siblings.values()))

    def _tails(self) -> int:
        """Blocks that are reserved for rows which will join once their prompt has been read."""
        return 2 * self._reserved()
