"""Prometheus metrics. The names are those of vLLM, with the prefix `nanochat_`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# From milliseconds (a small model on a GPU) to seconds (a model that has yet to be loaded, on a CPU).
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry per application, so that tests can run several applications in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = self._gauge("num_requests_running", "Requests in decoding")
        self.waiting = self._gauge("num_requests_waiting", "Requests queued")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens")
        self.generation_tokens = self._counter("generation_tokens", "Generated tokens")
        self.success = self._counter("request_success", "Finished answers", "model_name", "finished_reason")
        self.cancelled = self._counter("request_cancelled", "Requests whose client disconnected")
        self.rejections = self._counter("admission_rejections", "Refused requests", "reason")
        self.ttft = self._histogram("time_to_first_token_seconds", "From arrival to the first token")
        self.itl = self._histogram("inter_token_latency_seconds", "Between two tokens of one answer")
        self.e2e = self._histogram("e2e_request_latency_seconds", "From arrival to the last token")
        self.loaded = self._gauge("model_loaded_info", "1 for each model in memory", "model_name", "stage", "step")

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"nanochat_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"nanochat_{name}", text, labels or ("model_name",), registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"nanochat_{name}", text, ("model_name",), buckets=LATENCY_BUCKETS_S, registry=self.registry)
