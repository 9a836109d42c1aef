"""Token buckets that limit the requests of a key, or of an address that sends wrong keys. Each API process has its own."""

from __future__ import annotations

import threading
import time

MAX_BUCKETS = 10_000  # beyond that, buckets that are full again are forgotten


class RateLimit:
    """At most `burst` requests at once and `per_s` per second over time, by name."""

    def __init__(self, per_s: float, burst: int):
        self._per_s, self._burst = per_s, burst
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # name -> (tokens, time of the last request)

    def take(self, name: str) -> float:
        """Take a token. Returns 0 if there was one, else the seconds until there is one."""
        with self._lock:
            now = time.monotonic()
            tokens = self._tokens(name, now)
            if len(self._buckets) >= MAX_BUCKETS and name not in self._buckets:
                self._buckets = {k: v for k, v in self._buckets.items() if self._tokens(k, now) < self._burst}
            self._buckets[name] = (max(0.0, tokens - 1), now) if tokens >= 1 else (tokens, now)
            return 0.0 if tokens >= 1 else (1 - tokens) / self._per_s

    def is_empty(self, name: str) -> bool:
        """Whether the next `take` would have to wait."""
        with self._lock:
            return self._tokens(name, time.monotonic()) < 1

    def _tokens(self, name: str, now: float) -> float:
        tokens, last = self._buckets.get(name, (float(self._burst), now))
        return min(float(self._burst), tokens + (now - last) * self._per_s)
