"""Published figures beside which a run is read.

Sources: the README of nanochat in October 2025, its table of GPT-2 models measured by the same harness, and a public report of an
independent run of 2025-11-11. CORE is noisy: seven identical runs of nanochat spread over 0.0165, and independent d20 runs over
0.191 to 0.222.
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
        core=0.1910,
        bpb=0.8120,
        chatcore=0.2793,
        source="public report, 2025-11-11",
    ),
    Published(name="GPT-2 large", params="774M", core=0.2146, source=_HARNESS),
    Published(name="nanochat d20", params="561M", hardware="8 × H100, 3h51m, about $100", core=0.2219, source=_README),
    Published(name="GPT-2 XL", params="1.56B", core=0.2565, source=_HARNESS),
    Published(
        name="nanochat d26",
        params="1.08B",
        hardware="8 × H100, about 12 h and $300",
        source=f"{_README}, which gives no figure: slightly above GPT-2 XL",
    ),
    Published(
        name="nanochat d32",
        params="1.88B",
        hardware="8 × H100, about 33 h and $800",
        source="nanochat's demo of October 2025; no CORE published",
    ),
)
