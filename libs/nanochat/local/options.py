"""The arguments that the local commands share."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add `recipe` and `--overrides`, in which the `nanochat` command hands on its `--set`, `--data`, `--from` and `--first`."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a TOML file")
    parser.add_argument(
        "--overrides", type=table, default={}, metavar="JSON", help='fields to change: {"base.num_iterations": 20}'
    )


def table(text: str) -> dict[str, Any]:
    """Parse a JSON object. Raises argparse.ArgumentTypeError."""
    try:
        value = json.loads(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"not JSON: {err}") from err
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('not a JSON object, such as {"base.num_iterations": 20}')
    return value
