"""Published figures beside which a run is read.

Sources: the README of nanochat in October 2025, its table of GPT-2 models measured by the same harness, a public report of an
independent run of 2025-11-11, and nanochat's table of 2026 of the time that reaching GPT-2 XL's CORE takes. CORE is noisy: seven
identical runs of nanochat spread over 0.0165, and independent d20 runs over 0.191 to 0.222.
"""

from __future__ import annotations

from nanochat.report.card import Published

_HARNESS = "nanochat's harness"
_README = "nanochat's README, October 2025"

PUBLISHED: tuple[Published, ...] = (
    Published(name="GPT-2", params="124M", core=0.1139, source=_HARNESS),
    Published(name="GPT-2 medium", params="355M", core=0.1849, source=_HARNESS),
    Published(
        name="nanochat d20, independent run",
        params="561M",
        hardware="8 × H100, 3h35m",
        hours=3.58,
        core=0.1910,
        bpb=0.8120,
        chatcore=0.2793,
        source="public report, 2025-11-11",
    ),
    Published(name="GPT-2 large", params="774M", core=0.2146, source=_HARNESS),
    Published(
        name="nanochat d20",
        params="561M",
        hardware="8 × H100, 3h51m, about $100",
        hours=3.85,
        usd=100,
        core=0.2219,
        source=_README,
    ),
    Published(name="GPT-2 XL", params="1.56B", core=0.2565, source=_HARNESS),
    Published(
        name="nanochat d26",
        params="1.08B",
        hardware="8 × H100, about 12 h and $300",
        hours=12,
        usd=300,
        source=f"{_README}, which gives no figure: slightly above GPT-2 XL",
    ),
    Published(
        name="nanochat d32",
        params="1.88B",
        hardware="8 × H100, about 33 h and $800",
        hours=33,
        usd=800,
        source="nanochat's demo of October 2025; no CORE published",
    ),
)

_TABLE = "nanochat's table of times to GPT-2"
_OTHER_TEXT = f"{_TABLE}; its bits per byte are of other text"

# Hours of training iterations alone on 8 × H100, of models whose CORE is above GPT-2 XL's 0.256525.
TIME_TO_GPT2: tuple[Published, ...] = (
    Published(
        name="GPT-2 XL, as trained in 2019",
        params="1.56B",
        hardware="32 × TPU v3, 168 h, about $43,000",
        hours=168,
        usd=43_000,
        core=0.2565,
        source=_TABLE,
    ),
    Published(name="d24", hardware="8 × H100", hours=3.04, core=0.2585, bpb=0.74833, source=f"{_TABLE}, 2026-01-29, 348fbb3"),
    Published(
        name="d26 in fp8", hardware="8 × H100", hours=2.91, core=0.2578, bpb=0.74504, source=f"{_TABLE}, 2026-02-02, a67eba3"
    ),
    Published(
        name="d26, 1M tokens a step",
        hardware="8 × H100",
        hours=2.76,
        core=0.2602,
        bpb=0.74645,
        source=f"{_TABLE}, 2026-02-05, 2c062aa",
    ),
    Published(
        name="d24 on ClimbMix, mean of 7 runs",
        hardware="8 × H100",
        hours=2.02,
        core=0.2571,
        source=f"{_OTHER_TEXT}; 2026-03-04, 324e69c",
    ),
    Published(
        name="autoresearch round 1, mean of 5 runs",
        hardware="8 × H100",
        hours=1.80,
        core=0.2690,
        source=f"{_OTHER_TEXT}; 2026-03-09, 6ed7d1d",
    ),
    Published(
        name="autoresearch round 2, mean of 5 runs",
        hardware="8 × H100",
        hours=1.65,
        core=0.2626,
        source=f"{_OTHER_TEXT}; 2026-03-14, a825e63",
    ),
)
