"""Copy what a run has recorded to trackers: `python -m nanochat.loggers RUN_FOLDER --to tensorboard wandb`.

With --follow it goes on until its standard input ends, as `nanochat local-run --log` uses it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nanochat.contract.contract import Exit
from nanochat.loggers.follow import at_once, follow, until_closed
from nanochat.loggers.sinks import SINKS, missing


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m nanochat.loggers", description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of a run, which holds a folder for each stage")
    parser.add_argument(
        "--to", nargs="+", choices=sorted(SINKS), required=True, metavar="TRACKER", help=", ".join(sorted(SINKS))
    )
    parser.add_argument("--follow", action="store_true", help="go on until standard input ends")
    args = parser.parse_args(argv)
    if absent := missing(args.to):
        sys.stderr.write(f"not installed: {', '.join(absent)}; pip install 'nanochat-platform[loggers]'\n")
        return Exit.BAD_INPUT
    if not args.follow and not any(args.folder.glob("*/attempt-*")):
        sys.stderr.write(f"{args.folder} is no folder of a run: it has no <stage>/attempt-<n>\n")
        return Exit.BAD_INPUT
    return follow(args.folder, args.to, until_closed(sys.stdin.fileno()) if args.follow else at_once)


if __name__ == "__main__":
    raise SystemExit(main())
