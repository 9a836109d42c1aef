"""Options that the local commands share."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """`recipe` and `--overrides`. The `nanochat` command reads its own `--set` and `--data` and passes them on as JSON."""
    parser.add_argument("recipe", help="name of a shipped recipe, or a TOML file")
    parser.add_argument(
        "--overrides", type=table, default={}, metavar="JSON", help='fields to change: {"base.num_iterations": 20}'
    )


def table(text: str) -> dict[str, Any]:
    """A JSON object, for argparse."""
    try:
        value = json.loads(text)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"not JSON: {err}") from err
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('not a JSON object, such as {"base.num_iterations": 20}')
    return value
