"""The table of metrics holds what the stages report, and everything that shows metrics follows it."""

import pytest

from nanochat.planning import metrics
from nanochat.planning.graph import STAGES
from nanochat.planning.metrics import ALL, BY_KEY, METRICS
from nanochat.report import build, sections
from tests.catalog import CATALOG

TRAINED = [stage for stage in STAGES if stage.trains]
# Reported only where there is a GPU, hub data, text that is cropped or conversations that are packed.
ELSEWHERE = {"mfu", "usd", "core", "mmlu", "arc_easy", "arc_challenge", "cropped_pct", "padding_pct"}


def test_keys_are_unique_and_every_stage_is_known():
    assert len(BY_KEY) == len(METRICS)
    assert {kind for metric in METRICS for kind in metric.stages} == {stage.kind for stage in TRAINED} == set(ALL)


@pytest.mark.usefixtures("one_core")
@pytest.mark.parametrize("stage", TRAINED, ids=lambda stage: stage.name)
def test_a_stage_reports_the_metrics_of_its_rows_and_no_others(small_run, stage):
    values = [event["values"] for event in small_run.events(stage.name, "metric")]
    reported = {key for step in values for key in step}
    ours = {metric.key for metric in METRICS if stage.kind in metric.stages}
    assert reported <= ours
    assert ours - reported <= ELSEWHERE
    assert all(step[key] is None for step in values for key in {"mfu", "usd"} & set(step))


def test_the_curves_and_columns_of_every_training_stage():
    for stage in TRAINED:
        for plot in ("training", "validation"):
            assert any(m.plot == plot and stage.kind in m.stages for m in METRICS), (stage.name, plot)
    assert all(metric.short for metric in METRICS)


def test_clients_are_served_both_tables():
    assert [stage.name for stage in CATALOG.stages] == [stage.name for stage in STAGES]
    assert [(m.key, m.label, m.short) for m in CATALOG.metrics] == [(m.key, m.label, m.short) for m in METRICS]


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("val_loss", "validation loss (nats per token)"),
        ("untrained_val_bpb", "validation bits per byte before training"),
        ("min_val_loss", "lowest validation loss (nats per token)"),
        ("pass_at_1_before", "pass@1 before training"),
        ("first_reward", "first reward"),
    ],
)
def test_figures_of_results_are_named_after_their_metric(key, label):
    assert metrics.label(key) == label
    assert sections.of(build.card("sft", "done", results={key: 0.5})).facts == [(label, "0.5000")]
