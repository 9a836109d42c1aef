"""`python -m tests.faults.campaign.service api|worker …`: the real service, with every period of the control plane made short."""

from __future__ import annotations

import sys
from dataclasses import fields

from controlplane import timing

SHORT = {
    "lease_ttl": 4.0,
    "lease_grace": 1.0,
    "worker_silent_after": 2.0,
    "redeliver_after": 6.0,
    "steady_gap": 3.0,
    "backoff": (0.3,),
    "storage_backoff": (2.0,),
}


def main(argv: list[str]) -> int:
    # Before any other module has taken DEFAULT for its own default.
    timing.Timing.__init__.__defaults__ = tuple(SHORT.get(f.name, f.default) for f in fields(timing.Timing))
    timing.DEFAULT = timing.Timing()
    if argv[0] == "api":
        from services.api.__main__ import main as api

        return api(argv[1:])
    from services.worker.__main__ import main as worker

    return worker(argv[1:])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
