"""Paths as people write them."""

from __future__ import annotations

import os
from pathlib import Path


def path_of(place: str | Path) -> Path:
    """A path whose `~` is the home folder.

    The `~name` of no user stays as it is, so that a person is told that there is no such file; `Path.expanduser` raises RuntimeError.
    """
    return Path(os.path.expanduser(place))
