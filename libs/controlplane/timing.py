"""All periods and budgets of the control plane. Periods are measured by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Values are in seconds, except for the counts `max_failures`, `crash_limit` and `webhook_tries`. Only tests change them."""

    lease_ttl: float = 120.0  # workers renew every few seconds, so it only runs out in an outage
    lease_grace: float = 60.0  # after the lease has run out, before the attempt is declared lost
    worker_silent_after: float = 30.0  # without a heartbeat; workers send one every 5 s
    redeliver_after: float = 30.0  # before a wake-up call that led to no claim is sent again
    steady_gap: float = 30.0  # a control loop that paused longer counts as new: after an outage all leases look old
    stall_after: float = 1800.0  # without an event or a log line a running stage is stopped
    max_failures: int = 3  # counted failures since the last checkpoint progress, after which a stage fails for good
    crash_limit: int = 2  # crashes in a row without checkpoint progress, after which a stage fails for good
    storage_backoff: tuple[float, ...] = (60.0, 120.0, 300.0)  # as `backoff`, while a disk is full or read-only
    gc_grace: float = 86_400.0  # between the marking of a checkpoint that nothing needs and the deletion of its files
    backoff: tuple[float, ...] = (3.0, 15.0, 60.0, 300.0)  # after the 1st failure, the 2nd, ...; the last repeats
    webhook_backoff: tuple[float, ...] = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)  # as `backoff`, without jitter
    webhook_tries: int = 10  # of one delivery: about a day and a half
    webhook_max_age: float = 172_800.0  # of a delivery that is still tried
    webhook_off_after: float = 86_400.0  # of failures without a success between them, a webhook is switched off
    webhook_kept: float = 604_800.0  # a delivery is kept after its end

    def webhook_delay(self, tries: int) -> float:
        """Seconds to wait before the next try, after this many failed ones."""
        return self.webhook_backoff[min(tries, len(self.webhook_backoff)) - 1]

    def retry_delay(self, failures: int) -> float:
        """Seconds to wait before the next attempt, after 1 or more counted failures."""
        return self.backoff[min(failures, len(self.backoff)) - 1]

    def storage_delay(self, times: int) -> float:
        """Seconds to wait before the next attempt, after this many faults of the storage in a row."""
        return self.storage_backoff[min(times, len(self.storage_backoff)) - 1]


DEFAULT = Timing()
