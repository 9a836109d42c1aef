"""The two 8-bit floating-point formats (Micikevicius et al. 2022, arXiv 2209.05433) and how much headroom their scales leave."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of fp8. The scale puts the largest magnitude between 2^exponent and twice that; `limit` is the largest value."""

    dtype: torch.dtype
    mantissa: int  # stored bits
    limit: float
    tiny: float  # the smallest normal
    exponent: int

    @property
    def magic(self) -> float:
        """Times a number's power of two: what rounds it to `mantissa` bits when added to it in fp32 and taken away again."""
        return 1.5 * 2.0 ** (23 - self.mantissa)


# Room to grow within a step before anything saturates: 3.5 to 7 times, and 14 to 28 times for gradients, whose format has range
# to spare. Below the largest magnitude e4m3 keeps full precision for 2^12, e5m2 for 2^25.
E4M3 = Format(torch.float8_e4m3fn, 3, 448.0, 2.0**-6, 6)
E5M2 = Format(torch.float8_e5m2, 2, 57344.0, 2.0**-14, 11)
