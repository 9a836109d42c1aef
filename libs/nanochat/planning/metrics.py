"""The one table of metrics that stages report: their unit, their direction and their names for people.

The report reads it here; the dashboard and the command line read it from `GET /v1/catalog`. To add a metric, add its row
and put its value among those that the stage emits (CONTRIBUTING.md has a worked example).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from nanochat.tasks.catalog import TASKS

Better = Literal["lower", "higher"]
Plot = Literal["training", "validation"]

ALL = ("base_train", "mid_train", "sft", "rl")


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure by step. `stages` are the kinds that report it; `better` is None where neither direction is.

    `short` labels it where there is little room. `plot` is the curve that the dashboard draws it in: of the metrics of one
    plot, a stage shows the first that it reports. `column`: tables of stages show its newest value.
    """

    key: str
    title: str
    unit: str
    better: Better | None
    stages: tuple[str, ...]
    short: str = ""
    plot: Plot | None = None
    column: bool = False

    @property
    def label(self) -> str:
        """Title and unit, as an axis or a row of a table is named."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


METRICS: tuple[Metric, ...] = (
    Metric("loss", "training loss", "nats per token", "lower", ALL, "loss", "training", column=True),
    Metric("reward", "mean reward", "", "higher", ("rl",), "reward"),
    Metric(
        "val_bpb", "validation bits per byte", "", "lower", ("base_train", "mid_train"), "val bpb", "validation", column=True
    ),
    Metric("val_loss", "validation loss", "nats per token", "lower", ("sft",), "val loss", "validation"),
    Metric("pass_at_1", "pass@1", "", "higher", ("rl",), "pass@1", "validation"),
    Metric("pass_at_8", "pass@8", "", "higher", ("rl",), "pass@8"),
    Metric("core", "CORE", "", "higher", ("base_train",), "CORE"),
    # SFT judges its model now and then on the tasks that are quick to judge.
    *(
        Metric(task.name, f"{task.title} accuracy", "", "higher", ("sft",), task.title)
        for task in TASKS
        if task.judge == "letter"
    ),
    Metric("tok_per_s", "training speed", "tokens per second", "higher", ALL, "tok/s", column=True),
    Metric("mfu", "model FLOPs utilization", "% of the bf16 peak", "higher", ALL, "MFU"),
    Metric("mem_gib", "peak memory", "GiB", "lower", ALL, "memory"),
    Metric("dt_ms", "time of a step", "ms", "lower", ALL, "step"),
    Metric(
        "data_wait_pct", "time spent waiting for data, rewards or other processes", "% of the step", "lower", ALL, "waiting"
    ),
    Metric("usd", "cost of the GPUs so far", "USD", "lower", ALL, "cost"),
    Metric("lrm", "learning-rate multiplier", "", None, ALL, "lrm"),
    Metric("grad_norm", "norm of the gradient", "", None, ALL, "grad norm"),
    Metric("cropped_pct", "tokens cropped from documents", "%", "lower", ("base_train",), "cropped"),
    Metric("padding_pct", "padding in packed rows", "%", "lower", ("mid_train", "sft"), "padding"),
    Metric("entropy", "entropy of the sampled tokens", "nats per token", None, ("rl",), "entropy"),
    Metric("kl", "divergence from the model at the start", "nats per token", None, ("rl",), "KL"),
    Metric("rollout_tok_per_s", "speed of sampling answers", "tokens per second", "higher", ("rl",), "sampled tok/s"),
    Metric("sampling_pct", "time spent sampling answers", "% of the step", None, ("rl",), "sampling"),
    Metric("unjudged", "answers that the reward function failed to judge", "", "lower", ("rl",), "unjudged"),
    Metric("sequence_length", "mean length of a completion", "tokens", None, ("rl",), "length"),
)
BY_KEY: dict[str, Metric] = {metric.key: metric for metric in METRICS}

# Figures of evaluations that stand for a whole model: the evaluation's name -> its value -> the metric.
HEADLINES: dict[str, dict[str, str]] = {
    "bpb": {"val": "val_bpb"},
    "core": {"core": "core"},
    "chatcore": {"chatcore": "chatcore"},
}


def headline(evaluation: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics that an evaluation measured of a whole model, by key."""
    return {key: values[name] for name, key in HEADLINES.get(evaluation, {}).items() if name in values}


def label(key: str) -> str:
    """What a figure of a stage's results is called: the metric's label, or the key's own words.

    Results also hold a metric before training (`untrained_…`, `…_before`) and its lowest value (`min_…`).
    """
    if key in BY_KEY:
        return BY_KEY[key].label
    for prefix, suffix, wording in (
        ("untrained_", "", "{} before training"),
        ("min_", "", "lowest {}"),
        ("", "_before", "{} before training"),
    ):
        inner = key[len(prefix) : len(key) - len(suffix)]
        if key.startswith(prefix) and key.endswith(suffix) and inner in BY_KEY:
            return wording.format(BY_KEY[inner].label)
    return key.replace("_", " ")
