"""The report card of a local run, written beside its stages however the run ended."""

import json
from pathlib import Path

from nanochat.config.recipe import resolve
from nanochat.contract.contract import Exit
from nanochat.local.card import write_card
from tests.nanochat.report.runs import attempt, falling

TINY = resolve("tiny", {"rl.enabled": True})


def test_a_run_whose_training_failed_has_a_report_of_what_was_done(tmp_path: Path) -> None:
    attempt(tmp_path / "data", 1, [], figures={"train_shards": 2})
    attempt(tmp_path / "base_train", 1, falling(5), ended="the machine stopped")
    attempt(
        tmp_path / "base_train", 2, falling(9, 4), ended="the loss is nan", resumed_from="attempt-1/checkpoints/step_000003"
    )
    said = write_card(tmp_path, TINY, Exit.NONFINITE)
    assert said == f"the report is in {tmp_path / 'report.html'}, report.md and report.json beside it"
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["state"] == "partial"
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert (stages["data"]["state"], stages["data"]["seconds"]) == ("done", 60.0)
    assert (stages["base_train"]["state"], stages["base_train"]["why"]) == ("failed", "the loss is nan")
    assert next(c for c in stages["base_train"]["record"]["curves"] if c["key"] == "loss")["steps"] == list(range(1, 10))
    assert {stages[name]["state"] for name in ("tok_train", "mid_train", "rl")} == {"not reached"}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "A stage failed. When its cause is mended, the same command goes on from here." in page
    assert '<p class="lede">A run of the recipe tiny, ' in page
    assert report["machine"]["cores"] >= 1
    assert "the loss is nan" in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_a_run_in_which_nothing_began_has_none(tmp_path: Path) -> None:
    assert write_card(tmp_path, TINY, Exit.STOPPED) == "no stage has begun, so there is no report"
    assert list(tmp_path.iterdir()) == []
