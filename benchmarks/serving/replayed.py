"""`python -m benchmarks.serving.replayed OPTIONS`: the service, with a replay in place of its engine process. See `replay`."""

from __future__ import annotations

from pydantic_settings import CliApp

from benchmarks.serving.replay import launch
from services import logs
from services.inference.app import create_app
from services.inference.serve import Server, config
from services.inference.settings import Settings
from services.inference.source import source


def main() -> None:
    logs.configure()
    settings = CliApp.run(Settings)
    app = create_app(settings, source(settings), launch)
    server = Server(
        config(app, settings, host=settings.host, port=settings.port),
        drain=lambda: None,
        abort=lambda: app.state.service.engines.abort(),
        drain_s=1,
    )
    server.run()


if __name__ == "__main__":
    main()
