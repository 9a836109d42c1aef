"""`python -m services.standalone up | demo | down`: the whole platform on this machine, without Docker."""

from __future__ import annotations

import argparse
import os
import sys

from services.standalone import console
from services.standalone.child import StartError
from services.standalone.roster import home_folder

COMMANDS = {
    "up": "start the platform and run it until Ctrl-C",
    "demo": "start the platform, train the tiny recipe, ask the model a question (DATA=<folder of text>, ONCE=1)",
    "down": "stop the platform that runs in another terminal",
}
NEXT = "In another terminal: nanochat submit tiny -f, then nanochat chat"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.standalone", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, description=text)
    commands.add_parser("supervise")  # internal: see console.running_stack
    command = parser.parse_args(argv).command
    # Everything is on loopback, so no request may go through a proxy.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(
        filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"])
    )
    match command:
        case "supervise":
            return console.supervise()
        case "down":
            return console.down()
        case "demo":
            from services.standalone.demo import demo

            return demo()
    return up()


def up() -> int:
    try:
        with console.running_stack(home_folder()) as stack:
            print(f"\n{stack.addresses()}\n\n{NEXT}\nCtrl-C stops everything.", flush=True)
            stack.wait()
    except KeyboardInterrupt:
        return 0
    except StartError as err:
        print(err, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
