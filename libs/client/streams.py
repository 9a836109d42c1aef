"""The standard streams of the command, whatever the shell has made of them."""

from __future__ import annotations

import os
import sys


def mend() -> None:
    """After `nanochat … <&- >&-` the closed streams read and take nothing: otherwise the next connection would get their numbers.
    A character that the terminal's encoding lacks is printed as `?`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is that of the stream
            os.set_inheritable(number, True)
            setattr(sys, name, open(number, mode, encoding="utf-8"))  # noqa: SIM115  # open until the end
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
