"""How the gauges of all services are named."""

from __future__ import annotations

from prometheus_client.core import GaugeMetricFamily


def gauge(name: str, text: str, *samples: tuple[tuple[str, ...], float], labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    """The gauge `nanochat_<name>`, with a value for each tuple of labels."""
    family = GaugeMetricFamily(f"nanochat_{name}", text, labels=labels)
    for values, sample in samples:
        family.add_metric(values, float(sample))
    return family
