"""The command `nanochat`. Its imports take up to a second, in which Ctrl-C ends it without a traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent() -> Iterator[None]:
    """Let Ctrl-C end this process at once, unless it is ignored or handled already."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def main() -> None:
    with silent():
        from client.cli import main as run
    run()


if __name__ == "__main__":
    main()
