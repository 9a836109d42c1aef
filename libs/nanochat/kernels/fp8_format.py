"""The two fp8 formats (Micikevicius et al. 2022, arXiv 2209.05433) and the headroom that their scales leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Format:
    """An fp8 format. A tensor's scale maps its largest magnitude into [2^exponent, 2^(exponent + 1)); the rest is headroom."""

    dtype: torch.dtype
    mantissa: int  # stored mantissa bits
    limit: float  # largest finite value
    tiny: float  # smallest normal value
    exponent: int  # of the largest magnitude after scaling

    @property
    def magic(self) -> float:
        """Rounds to `mantissa` bits: (y + magic * p) - magic * p in fp32 is y rounded, where |y| is in [p, 2p)."""
        return 1.5 * 2.0 ** (23 - self.mantissa)


# Headroom is how far a tensor may grow within a step before values saturate: 3.5 to 7 times for e4m3, 14 to 28 times for e5m2,
# which is for gradients and has range to spare. Values keep full precision down to 2^-12 (e4m3) or 2^-25 (e5m2) of the largest.
E4M3 = Format(torch.float8_e4m3fn, 3, 448.0, 2.0**-6, 6)
E5M2 = Format(torch.float8_e5m2, 2, 57344.0, 2.0**-14, 11)
