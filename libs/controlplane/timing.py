"""Every period and budget of the control plane in one place. All are judged by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, unless the name says otherwise. Tests shorten them; nothing else should need to."""

    lease_ttl: float = 120.0  # a worker renews every few seconds, so this spans an outage, not a hiccup
    lease_grace: float = 60.0  # beyond the lease, before an attempt is declared lost
    worker_silent_after: float = 30.0  # six missed heartbeats
    redeliver_after: float = 30.0  # an unclaimed wake-up call is sent again
    steady_gap: float = 30.0  # a loop that paused this long starts afresh: after an outage every lease looks old
    stall_after: float = 1800.0  # without an event or a log line
    max_failures: int = 3  # counted ones since the last checkpoint progress
    crash_limit: int = 2  # crashes in a row without progress
    backoff: tuple[float, ...] = (3.0, 15.0, 60.0, 300.0)  # after the first failure, the second, ...

    def retry_delay(self, failures: int) -> float:
        """Seconds to wait after that many counted failures (1 or more)."""
        return self.backoff[min(failures, len(self.backoff)) - 1]


DEFAULT = Timing()
