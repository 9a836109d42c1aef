"""`python -m services.inference` serves promoted checkpoints. With `--model DIR --tokenizer DIR` it needs no control API."""

from __future__ import annotations

import os
import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from nanochat.contract.contract import StageError
from services import logs
from services.inference.settings import Settings
from services.inference.source import Source, source

# For the engine processes. By default OpenMP's idle threads spin, which takes the cores from a trainer on the same machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

BAD_INPUT = 64


def main() -> int:
    try:
        logs.configure()
        settings = CliApp.run(Settings)
        settings.keys()
        _serve(settings, source(settings))
    except (ValidationError, StageError, ValueError, OSError) as err:
        sys.stderr.write(f"services.inference: {_words(err)}\n")
        return BAD_INPUT
    return 0


def _serve(settings: Settings, models: Source) -> None:
    # Imported late, so that a wrong setting is reported at once.
    from services.inference.app import create_app
    from services.inference.serve import Server, config

    app = create_app(settings, models)

    def drain() -> None:
        app.state.draining = True

    def abort() -> None:
        app.state.service.engines.abort()

    Server(config(app, settings, host=settings.host, port=settings.port), drain, abort, settings.drain_s).run()


def _words(err: Exception) -> str:
    if isinstance(err, ValidationError):
        problems = [(".".join(map(str, e["loc"])), str(e["msg"]).removeprefix("Value error, ")) for e in err.errors()]
        return "; ".join(f"{field}: {text}" if field else text for field, text in problems)
    return f"{err}; {err.hint}" if isinstance(err, StageError) else str(err)


if __name__ == "__main__":
    raise SystemExit(main())
