"""`python -m services.worker --queue gpu|cpu`: the worker of one queue on this machine."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from celery import signals
from pydantic import ValidationError

from controlplane import db
from services import logs
from services.worker import hardware
from services.worker.app import TASK, make_app
from services.worker.calls import only_for_waiting_stages
from services.worker.keeper import Keeper
from services.worker.probes import Probes
from services.worker.settings import SLOTS, Queue, Settings
from services.worker.sweeper import Sweeper
from services.worker.tasks import add_task
from services.worker.telemetry import Telemetry


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m services.worker", description=__doc__)
    parser.add_argument("--queue", choices=list(SLOTS), required=True)
    queue = parser.parse_args(argv).queue
    try:
        logs.configure()
        settings = Settings()
    except ValidationError as err:
        for problem in err.errors():
            sys.stderr.write(f"NANOCHAT_{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg']}\n")
        return 64
    held = len(hardware.gpus(settings.gpus)) if queue == "gpu" else 0
    if held and settings.gpu_slots > held:
        sys.stderr.write(f"NANOCHAT_GPU_SLOTS: {settings.gpu_slots} slots cannot share {held} GPUs; use at most {held}\n")
        return 64
    engine = db.make_engine(settings.database_url, pool_size=1)
    telemetry = Telemetry(settings, settings.id_for(queue))
    try:
        probes = _probes(settings, queue, telemetry)
    except OSError as err:
        sys.stderr.write(f"NANOCHAT_PROBE_PORT: {settings.probe_host}:{settings.probe_port} cannot be used: {err.strerror}\n")
        return 64
    keeper = Keeper(db.sessions(engine), queue, settings, telemetry)
    if probes is not None:
        probes.start()
    keeper.register()
    # Each stage runs in a fork of this process and opens its own connections.
    engine.dispose()

    sweeper = Sweeper(db.sessions(engine), settings, lambda: telemetry.tick("sweeper")) if queue == "cpu" else None

    def on_ready(**_: Any) -> None:
        keeper.start()
        if sweeper is not None:
            sweeper.start()

    def on_shutting_down(**_: Any) -> None:
        keeper.drain()

    def on_shutdown(**_: Any) -> None:
        keeper.stop()

    signals.worker_ready.connect(on_ready, weak=False)
    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    signals.worker_shutdown.connect(on_shutdown, weak=False)

    app = make_app(settings, queue)
    add_task(app, settings, queue)
    only_for_waiting_stages(app, TASK, db.sessions(engine))
    node = f"{settings.id_for(queue)}@%h"
    # --quiet omits the banner at the start, which is not a log line.
    arguments = ["--quiet", "worker", "-Q", queue, "-P", "prefork", "-n", node, "-l", "INFO"]
    arguments += ["--without-mingle", "--without-gossip"]
    app.worker_main(arguments)
    return 0


def _probes(settings: Settings, queue: Queue, telemetry: Telemetry) -> Probes | None:
    """Raises OSError if the port is taken."""
    if settings.probe_port is None:
        return None
    address = settings.probe_host, settings.probe_port
    alive, ready = settings.alive_file(queue), settings.ready_file(queue)
    return Probes(address, alive=alive, ready=ready, registry=telemetry.registry)


if __name__ == "__main__":
    raise SystemExit(main())
