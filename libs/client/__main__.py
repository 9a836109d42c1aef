"""The command `nanochat`. Its imports take up to a second, in which Ctrl-C ends it without a traceback."""

from __future__ import annotations

import signal


class Silent:
    """Within it Ctrl-C ends this process at once, unless it is ignored or handled already."""

    def __enter__(self) -> None:
        self.handler = signal.getsignal(signal.SIGINT)
        if self.handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self.handler)


def main() -> None:
    with Silent():
        from client import streams
        from client.cli import main as run
    streams.mend()
    run()


if __name__ == "__main__":
    main()
