"""Draw the next tokens of all rows of a batch at once, each by the settings of its row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.engine.request import Logprobs, Row
from nanochat.grammar import allowed

MOST = 1e30  # largest adjusted logit: divided by the lowest temperature it is still finite, and so no probability is NaN
MAX_GRAPH_TOP_K = 64  # `draw.MAX_TOP_K`, which cannot be imported without Triton


def sample(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Draw one token per row, (N,) int64, from logits (N, V) in fp32, on the same device.

    A random number of the row chooses the token by inverse transform sampling. Probabilities are summed in vocabulary order,
    not sorted. A rounding error in the logits therefore shifts the bounds between tokens slightly, but never reorders them.
    """
    settings = [row.request.sampling for row in rows]
    if any(how.changes_logits for how in settings):
        logits = _adjusted(logits, rows)
    if any(row.matcher is not None for row in rows):
        logits = _constrained(logits, rows)
    if all(how.greedy for how in settings):
        return logits.argmax(dim=-1)
    column = _Columns(logits)
    floor = _kth(logits, [how.top_k for how in settings]) if any(how.top_k for how in settings) else None
    top_p = column([how.top_p for how in settings]) if any(how.top_p < 1 for how in settings) else None
    min_p = column([how.min_p for how in settings]) if any(how.min_p > 0 for how in settings) else None
    return _drawn(logits, column(inverse_temperatures(rows)), column([row.draw() for row in rows]), floor, top_p, min_p)


def inverse_temperatures(rows: Sequence[Row]) -> list[float]:
    """1 / temperature of each row; 0 for a greedy row."""
    return [0.0 if row.request.sampling.greedy else 1 / row.request.sampling.temperature for row in rows]


def fits_graph(rows: Sequence[Row]) -> bool:
    """Whether the kernels of `draw` can draw for all rows: no penalties, biases, log probabilities, grammar, top_p or min_p, a small top_k."""
    return all(
        not how.changes_logits
        and how.grammar is None
        and how.logprobs is None
        and how.top_p == 1
        and how.min_p == 0
        and how.top_k <= MAX_GRAPH_TOP_K
        for how in (row.request.sampling for row in rows)
    )


def needs_tokens(rows: Sequence[Row]) -> bool:
    """Whether a draw depends on earlier tokens of its row, or its log probabilities must be read: such rows cannot run ahead."""
    return any(
        how.changes_logits or how.grammar is not None or how.logprobs is not None
        for how in (row.request.sampling for row in rows)
    )


def _drawn(
    logits: Tensor, inverse_temperature: Tensor, u: Tensor, floor: Tensor | None, top_p: Tensor | None, min_p: Tensor | None
) -> Tensor:
    """The tokens. Logits below `floor` are out; tokens that tie with the k-th stay in."""
    likeliest = logits.argmax(dim=-1)
    if floor is not None:
        logits = logits.masked_fill(logits < floor, -torch.inf)
    greedy = inverse_temperature == 0
    probs = (logits * inverse_temperature.masked_fill(greedy, 1.0)).softmax(dim=-1)
    if top_p is not None:
        probs = probs.masked_fill(probs < _nucleus_floor(probs, top_p), 0.0)
    if min_p is not None:
        probs = probs.masked_fill(probs < min_p * probs.amax(dim=-1, keepdim=True), 0.0)
    bounds = probs.cumsum(dim=-1)
    total = bounds[:, -1:]
    # Keep the point below the total even after rounding, so that there is always a bound above it.
    point = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    drawn = (bounds > point).int().argmax(dim=-1)
    return torch.where(greedy[:, 0], likeliest, drawn)


def logprobs(logits: Tensor, rows: Sequence[Row], tokens: Tensor) -> list[Logprobs | None]:
    """The log probabilities for the rows that request them, before temperature and all other settings; None for other rows."""
    asked = [i for i, row in enumerate(rows) if row.request.sampling.logprobs is not None]
    found: list[Logprobs | None] = [None] * len(rows)
    if not asked:
        return found
    logs = logits[asked].log_softmax(dim=-1)
    drawn = logs.gather(1, tokens.to(logits.device)[asked, None])[:, 0].tolist()
    counts = [rows[i].request.sampling.logprobs or 0 for i in asked]
    top = logs.topk(max(counts) or 1, dim=-1)
    for n, (i, count) in enumerate(zip(asked, counts, strict=True)):
        likeliest = zip(top.indices[n, :count].tolist(), top.values[n, :count].tolist(), strict=True)
        found[i] = Logprobs(drawn[n], dict(likeliest))
    return found


class _Columns:
    """Makes columns (N, 1) from settings of the rows, on the device of the logits."""

    def __init__(self, logits: Tensor):
        self._device = logits.device

    def __call__(self, values: Sequence[float], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=self._device)[:, None]


def _adjusted(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Return a copy of the logits with penalties and biases applied to the rows that have them."""
    logits = logits.clone()
    for i, row in enumerate(rows):
        how = row.request.sampling
        if how.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(set(row.tokens)), device=logits.device)
            values = logits[i, seen]
            logits[i, seen] = torch.where(values > 0, values / how.repetition_penalty, values * how.repetition_penalty)
        if (how.presence_penalty or how.frequency_penalty) and row.made:
            counts = Counter(row.made)
            made = torch.tensor(list(counts), device=logits.device)
            often = torch.tensor(list(counts.values()), dtype=logits.dtype, device=logits.device)
            logits[i, made] -= how.presence_penalty + how.frequency_penalty * often
        if how.logit_bias:
            biased = torch.tensor(list(how.logit_bias), device=logits.device)
            logits[i, biased] += torch.tensor(list(how.logit_bias.values()), dtype=logits.dtype, device=logits.device)
    return logits.clamp_(-MOST, MOST)


def _constrained(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    """Return a copy of the logits, minus infinity for the tokens that the grammar of a row excludes."""
    matchers = {i: row.matcher for i, row in enumerate(rows) if row.matcher is not None}
    words = torch.from_numpy(allowed(list(matchers.values()))).to(logits.device)
    bits = words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=logits.device) & 1
    excluded = bits.flatten(1)[:, : logits.size(-1)] == 0
    excluded = torch.nn.functional.pad(excluded, (0, logits.size(-1) - excluded.size(-1)), value=True)
    held = torch.tensor(list(matchers), device=logits.device)
    logits = logits.clone()
    logits[held] = logits[held].masked_fill(excluded, -torch.inf)
    return logits


def _kth(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """The k-th largest logit of each row, (N, 1); minus infinity where k is 0 or not less than the size of the vocabulary."""
    size = logits.size(-1)
    limits = [count if 0 < count < size else 0 for count in counts]
    if not any(limits):
        return logits.new_full((len(limits), 1), -torch.inf)
    largest = logits.topk(max(limits), dim=-1).values
    at = torch.tensor([max(limit - 1, 0) for limit in limits], device=logits.device)[:, None]
    off = torch.tensor([limit == 0 for limit in limits], device=logits.device)[:, None]
    return largest.gather(1, at).masked_fill(off, -torch.inf)


def _nucleus_floor(probs: Tensor, top_p: Tensor) -> Tensor:
    """The least probability, (N, 1), within the smallest set of most likely tokens whose sum reaches top_p.

    Source: nucleus sampling, Holtzman et al. 2020.
    """
    ordered = probs.sort(dim=-1, descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    before[:, 0] = -1.0  # the likeliest token is always in the set: a top_p such as 1e-46 is 0 in fp32
    floor = ordered.masked_fill(before >= top_p, torch.inf).amin(dim=-1, keepdim=True)
    return floor.masked_fill(top_p >= 1, 0.0)
