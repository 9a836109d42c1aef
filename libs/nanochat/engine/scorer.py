"""Score given continuations of given texts. What the sequences of a group begin with alike is read once.

The sequences lie in the engine's pool of KV blocks, as prompts do. Nothing is shared between groups, and nothing is kept.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.distributed import native_dtype
from nanochat.engine.budget import Budget
from nanochat.engine.cache import on_device
from nanochat.engine.runner import MAX_READ, Runner, affordable
from nanochat.model import GPT
from nanochat.model.loss import softcap

LEAST_SHARED = 16  # tokens; a shorter beginning is read again with each sequence
POSITIONS = {"cuda": 1 << 17}  # of the pool; more would hardly fill the passes better
CPU_POSITIONS = 1 << 15
CACHE_SHARE = 0.4  # of the GPU memory that is free when the scorer is created
LOGITS = {"cuda": 1 << 28}  # logits that are in memory at once
CPU_LOGITS = 1 << 22


@dataclass(frozen=True, slots=True)
class ScoredSequence:
    """A sequence of tokens. Its span ids[start:end] is scored, 1 <= start < end <= len(ids)."""

    ids: list[int]
    start: int
    end: int

    def cropped(self, limit: int) -> ScoredSequence:
        """Keep the last `limit` tokens. At least one of them stays before the span."""
        over = max(0, len(self.ids) - limit)
        return ScoredSequence(self.ids[over:], max(1, self.start - over), self.end - over)


Score = tuple[float, bool]


@dataclass(eq=False, slots=True)
class _Row:
    """A sequence being read. The states of its tokens from number `wanted` on are asked for."""

    tokens: list[int]
    wanted: int
    number: int = -1  # of the sequence among all that were given
    cached: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def unread(self) -> int:
        return len(self.tokens) - self.cached


@dataclass(frozen=True, slots=True)
class _Unit:
    """Rows that begin with the same `shared` tokens, read into blocks of their own before the rows."""

    shared: int
    rows: list[_Row]

    def blocks(self, size: int) -> int:
        whole = self.shared // size
        return -(-self.shared // size) + sum(-(-len(row.tokens) // size) - whole for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Piece:
    """The states of tokens `first` to `first + count` of a row, among those of one pass."""

    row: _Row
    first: int
    count: int


class Scorer:
    """Log probabilities under one model. On a GPU it runs through the engine's kernels and graphs of prompts, without padding.

    Matrices are multiplied in `dtype`, by default the device's native one. `limit` is the longest sequence. On other devices
    `batch_tokens` bounds a pass. With a `share` below 1 everything that takes memory is that much smaller. After the model's weights have
    changed, make another one: it may hold a copy of them.
    """

    def __init__(self, model: GPT, *, dtype: torch.dtype | None = None, batch_tokens: int = 4096, share: float = 1.0):
        config, self.device = model.config, model.get_device()
        dtype = dtype or native_dtype(self.device)
        self.limit, self._batch_tokens, self._share = model.rotary.length, max(1, int(batch_tokens * share)), share
        self._budget = Budget.of(config, self.device).shrunk(share)
        self._size = self._budget.block
        positions = int(POSITIONS.get(self.device.type, CPU_POSITIONS) * share)
        kept = min(positions, affordable(config, dtype, self.device, CACHE_SHARE * share))
        self._count = -(-max(kept, self.limit) // self._size)
        self._runner = Runner(model, dtype, self._count, self._budget, cache_dtype=dtype, context=self.limit)

    @torch.no_grad()
    def spans(self, groups: Sequence[Sequence[ScoredSequence]]) -> list[list[Score]]:
        """For each sequence of each group: the mean cross entropy of its span in nats, and whether each of its tokens is the most
        likely one.

        The groups may differ in everything; the more of them there are, the better passes are filled. Raises ValueError for a sequence
        that is longer than `limit`.
        """
        sequences = [sequence for group in groups for sequence in group]
        found: list[Score] = [(0.0, True)] * len(sequences)
        numbers = iter(range(len(sequences)))
        units = [
            unit
            for group in groups
            for unit in self._units([_Row(s.ids[: s.end - 1], s.start - 1, next(numbers)) for s in group])
        ]
        losses: list[Tensor] = []
        hits: list[Tensor] = []
        pieces: list[_Piece] = []
        for states, some in self._states(units):
            wanted = [sequences[p.row.number].ids[p.first + 1 : p.first + 1 + p.count] for p in some]
            targets = on_device([token for tokens in wanted for token in tokens], self.device)
            for loss, hit in self._head(states, targets):
                losses.append(loss)
                hits.append(hit)
            pieces += some
        if not pieces:
            return [[] for _ in groups]
        all_losses, all_hits = torch.cat(losses).double().cpu(), torch.cat(hits).cpu()
        ends = list(accumulate(piece.count for piece in pieces))
        for piece, end in zip(pieces, ends, strict=True):
            span = slice(end - piece.count, end)
            total, exact = found[piece.row.number]
            found[piece.row.number] = total + float(all_losses[span].sum()), exact and bool(all_hits[span].all())
        means = iter([(total / (s.end - s.start), exact) for s, (total, exact) in zip(sequences, found, strict=True)])
        return [[next(means) for _ in group] for group in groups]

    @torch.no_grad()
    def next_logits(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> Tensor:
        """The logits of some tokens as the next one after each prompt, before the soft cap: (prompts, tokens) fp32 on the CPU."""
        units = [unit for n, prompt in enumerate(prompts) for unit in self._units([_Row(list(prompt), len(prompt) - 1, n)])]
        head = self._runner.model.lm_head.weight[on_device(tokens, self.device)].float()
        order: list[int] = []
        found: list[Tensor] = []
        for states, pieces in self._states(units):
            found.append(states.float() @ head.T)
            order += [piece.row.number for piece in pieces]
        logits = torch.cat(found).cpu() if found else torch.empty(0, len(tokens))
        return logits[torch.tensor(order, dtype=torch.int64).argsort()]

    def _units(self, rows: list[_Row]) -> list[_Unit]:
        longest = max(map(len, (row.tokens for row in rows)), default=0)
        if longest > self.limit:
            raise ValueError(f"a sequence has {longest} tokens; at most {self.limit} are possible")
        # The last shared token is read with each row, because it predicts the row's first own one.
        shared = min(common_prefix([row.tokens for row in rows]), *(row.wanted for row in rows)) if len(rows) > 1 else 0
        together = _Unit(shared, rows)
        if shared >= LEAST_SHARED and together.blocks(self._size) <= self._count:
            return [together]
        return [_Unit(0, [row]) for row in rows]

    def _states(self, units: Sequence[_Unit]) -> Iterator[tuple[Tensor, list[_Piece]]]:
        """The states (N, C) that are asked for, pass by pass, and whose they are."""
        # By length, so that rows of a pass need little padding; the longest first, so that too little memory shows at once.
        waiting = sorted(units, key=lambda unit: (-unit.shared, -len(unit.rows[0].tokens)))
        while waiting:
            free, count = self._count, 0
            while count < len(waiting) and waiting[count].blocks(self._size) <= free:
                free -= waiting[count].blocks(self._size)
                count += 1
            batch, waiting = waiting[:count], waiting[count:]
            beginnings = self._place(batch)
            for _ in self._read(beginnings):
                pass
            self._fork(batch, beginnings)
            yield from self._read([row for unit in batch for row in unit.rows])

    def _place(self, batch: Sequence[_Unit]) -> list[_Row]:
        """Give every row its blocks. Returns the beginnings that are shared, as rows."""
        taken = 0

        def take(count: int) -> list[int]:
            nonlocal taken
            taken += count
            return list(range(taken - count, taken))

        beginnings = []
        for unit in batch:
            shared = take(-(-unit.shared // self._size))
            if unit.shared:
                beginnings.append(_Row(unit.rows[0].tokens[: unit.shared], unit.shared, blocks=shared))
            whole = unit.shared // self._size
            for row in unit.rows:
                row.blocks = [*shared[:whole], *take(-(-len(row.tokens) // self._size) - whole)]
        return beginnings

    def _fork(self, batch: Sequence[_Unit], beginnings: Sequence[_Row]) -> None:
        """Let the rows go on where their beginning ends: each gets a copy of its last block, unless that is full."""
        sources, targets = [], []
        for unit, beginning in zip([unit for unit in batch if unit.shared], beginnings, strict=True):
            for row in unit.rows:
                row.cached = unit.shared
                if unit.shared % self._size:
                    sources.append(beginning.blocks[-1])
                    targets.append(row.blocks[unit.shared // self._size])
        if sources:
            self._runner.pool.copy_all(sources, targets)

    def _read(self, rows: Sequence[_Row]) -> Iterator[tuple[Tensor, list[_Piece]]]:
        for some, new in self._packed(rows) if self._runner.ahead else self._padded(rows):
            self._runner.read(some, new)
            pieces: list[_Piece] = []
            numbers: list[int] = []
            begin = 0
            for row, count in zip(some, new, strict=True):
                first, end = max(row.wanted, row.cached), row.cached + count
                if first < end:
                    pieces.append(_Piece(row, first, end - first))
                    numbers += range(begin + first - row.cached, begin + count)
                row.cached, begin = end, begin + count
            if pieces:
                yield self._runner.states(numbers), pieces

    def _packed(self, rows: Sequence[_Row]) -> Iterator[tuple[list[_Row], list[int]]]:
        """Passes that are full to the last token: a row that does not fit goes on in the next one."""
        some: list[_Row] = []
        new: list[int] = []
        for row in rows:
            unread = row.unread
            while unread:
                count = min(unread, self._budget.idle - sum(new))
                some.append(row)
                new.append(count)
                unread -= count
                if sum(new) == self._budget.idle or len(some) == MAX_READ:
                    yield some, new
                    some, new = [], []
        if some:
            yield some, new

    def _padded(self, rows: Sequence[_Row]) -> Iterator[tuple[list[_Row], list[int]]]:
        """Passes of rows of similar length, which bound the tokens and the positions that attention gathers."""
        waiting = sorted(rows, key=lambda row: -row.unread)
        while waiting:
            longest, count, held = waiting[0].unread, 1, waiting[0].cached
            for row in waiting[1 : self._batch_tokens // longest]:
                held = max(held, row.cached)
                # Padding has positions too, and the model's tables end at `limit`.
                if (count + 1) * (held + longest) > CPU_POSITIONS or held + longest > self.limit:
                    break
                count += 1
            some, waiting = waiting[:count], waiting[count:]
            yield some, [row.unread for row in some]

    def _head(self, states: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For states (N, C) and targets (N,), in parts: the losses, and whether the target has the highest logit."""
        head = self._runner.model.lm_head
        size = max(1, int(LOGITS.get(states.device.type, CPU_LOGITS) * self._share) // head.weight.size(0))
        for some, target in zip(torch.split(states, size), torch.split(targets, size), strict=True):
            logits = softcap(head(some))
            yield F.cross_entropy(logits, target, reduction="none"), logits.argmax(dim=-1) == target


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """The number of leading tokens that all sequences have in common."""
    # The first and the last in lexicographic order differ earliest. Slices are compared in C: ten times as fast as token by token.
    low, high = min(sequences), max(sequences)
    shortest = min(len(low), len(high))
    return bisect.bisect_left(range(shortest), True, key=lambda end: low[: end + 1] != high[: end + 1])
