"""The report as Markdown: its figures, and its notes on those that are missing."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.__main__ import run as run_stage
from nanochat.config.recipe import Recipe, resolve
from nanochat.contract.contract import StageSpec, seal
from nanochat.data.core_bundle import ROWS
from nanochat.planning import graph
from nanochat.report import build, cells, markdown, notes
from nanochat.report.page import render
from tests.nanochat.report.runs import a_run, attempt, card, chat_results, results


def page(**replaced):
    return markdown.render(a_run(**replaced))


def row(text, name):
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_the_summary_has_every_figure_in_its_column():
    text = page()
    assert row(text, "CORE") == ["0.2000", "–", "–"]
    assert row(text, "Bits per byte, text") == ["0.8121", "–", "–"]
    assert row(text, "Bits per byte, conversations") == ["–", "0.3953", "–"]
    assert row(text, "Validation loss") == ["–", "–", "1.0110"]
    assert row(text, "ARC-Easy") == ["–", "0.4480", "0.4480"]
    assert row(text, "ChatCORE") == ["–", "0.2703", "0.2793"]
    assert row(text, "Training wall-clock") == ["10m00s", "10m00s", "10m00s"]
    assert row(text, "**From the first start to the last end**") == ["1h10m"]
    assert "RL" not in next(line for line in text.splitlines() if line.startswith("| Metric"))
    assert "At $24.00 an hour for 8 x H100: $28.00." in text
    assert "All settings are those of the d20 speedrun." in text
    assert "- No " not in text.replace("- Not part", "")


def test_a_run_that_starts_from_a_model_has_the_columns_of_what_it_trains_and_its_hardware():
    started = {**results(), "sft": {"val_loss": 1.0, "params": 560_988_160, "device": "cpu", "world_size": 1}}
    cards = [card("start", 0, {"first": "sft"}), *(card(name, 1, started[name]) for name in ("data", "sft", "chat_eval_sft"))]
    made = build.report("r_1", resolve("speedrun", {"from.model": "old"}).model_dump(mode="json"), cards, {"cores": 8})
    text = markdown.render(made)
    assert "| Metric | SFT |" in text
    assert row(text, "Validation loss") == ["1.0000"]
    assert row(text, "Trained on") == ["1 x cpu"]
    assert "560,988,160 parameters" in text
    assert row(text, "**This run**")[0] == "561M"
    assert render(made).count("A 561M-parameter language model made from an earlier one with 8 CPU cores in ") == 1


def test_a_stage_has_its_section_in_the_order_of_the_run():
    text = page()
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles[:2] == ["Summary", "Time"]
    assert titles[2:6] == ["Data", "Base model training", "Base model evaluation", "Midtraining"]
    assert row(text, "parameters") == ["560,988,160"]
    assert row(text, "hellaswag") == ["0.5000", "0.2000", "10,042", "10,042"]


def test_missing_figures_are_explained():
    core = {"core": None, "tasks": {}, "missing": ["coqa"], "partial": ["squad"], "estimate": True}
    text = page(
        base_eval={"bpb": {"val": 3.0}, "core": core},
        chat_eval_mid=chat_results("mid", None, {"sums": 0.5}),
        chat_eval_sft=None,
        sft=None,
    )
    assert "No CORE: it is the mean over 22 tasks, and 2 of them were incomplete (coqa, squad)." in text
    assert "No ChatCORE: it is the mean over 6 tasks, and these did not run: ARC-Easy, ARC-Challenge" in text
    assert "Not reached: tokenizer training" in text
    assert "Not part of this run: reinforcement learning" in text
    assert not any(line.startswith(("| CORE | 0", "| ChatCORE | –")) for line in text.splitlines()[:40])


def test_an_estimate_is_called_one():
    core = {"core": 0.21, "tasks": {}, "missing": [], "partial": [], "estimate": True}
    made = a_run(base_eval={"bpb": {"val": 3.0}, "core": core})
    text = markdown.render(made)
    assert row(text, "CORE (estimate)") == ["0.2100", "–", "–"]
    assert "CORE is an estimate" in text
    assert "CORE" not in [row.name for row in made.summary]


def test_an_empty_run_gives_a_readable_report():
    made = build.report("r_0", {"name": "tiny"}, [], {})
    text = markdown.render(made)
    assert text.startswith("# Report on r_0")
    assert "Not part of this run: data, tokenizer training" in text
    assert made.total_seconds is None


def test_tasks_that_failed_are_told_with_their_reasons():
    core = {
        "core": None,
        "tasks": {},
        "missing": ["coqa"],
        "partial": [],
        "failed": {"coqa": "line 7 is not JSON"},
        "estimate": False,
    }
    chat = {**chat_results("mid", None), "failed": {"mmlu": "the letter 'A' has 2 tokens"}}
    text = page(base_eval={"core": core}, chat_eval_mid=chat)
    assert "- CORE tasks that failed: coqa: line 7 is not JSON" in text
    assert "- Chat evaluation after midtraining, tasks that failed: MMLU: the letter 'A' has 2 tokens" in text


def test_core_from_other_baselines_says_that_it_does_not_compare():
    core = {
        "core": 0.2,
        "stderr": 0.004,
        "tasks": {},
        "missing": [],
        "partial": [],
        "baselines": "corrected",
        "estimate": False,
    }
    made = a_run(base_eval={"core": core})
    assert "DCLM's corrected baselines, so it does not compare" in markdown.render(made)
    assert next(row.errors for row in made.summary if row.name == "CORE") == {"BASE": 0.004}


def test_tool_calls_are_shown_as_calls():
    assert "There are [calls 'banana'.count('a')] [→ 3] of them. #### 3" in page()


def test_core_without_any_task_says_so():
    core = {"core": None, "tasks": {}, "missing": list(ROWS), "partial": [], "estimate": False}
    assert "22 of them were incomplete (all of them)" in page(base_eval={"core": core})
    assert len(ROWS) == notes.CORE_TASKS


def test_a_price_of_the_run_s_own_is_taken_for_hardware_without_one():
    on_a_cpu = {"base_train": {"device": "cpu", "world_size": 1}}
    assert build.cost(on_a_cpu, 1800) is None
    priced = build.cost(on_a_cpu, 1800, usd_per_hour=2.0)
    assert priced is not None
    assert (priced.gpu, priced.usd_per_hour, priced.usd) == ("cpu", 2.0, 1.0)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("![x](http://tracker/y.png)", "![x]\\(http://tracker/y.png)"),
        ("\x1b[31mred\x07", "\N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}"),
        ("a \u202eb", "a \N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_what_a_model_writes_loads_no_picture_and_steers_no_terminal(text, shown):
    assert markdown.escape(text) == shown


def test_model_output_cannot_break_the_page():
    text = page()
    lines = [line for line in text.splitlines() if line.startswith("| SpellingBee | How many \\|")]
    assert len(lines) == 2
    assert all(line.replace("\\|", "").count("|") == 5 for line in lines)
    assert "<b>" not in text


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("x", None, "–"),
        ("x", True, "yes"),
        ("steps", 21_400, "21,400"),
        ("x", 0.81234, "0.8123"),
        ("flops", 3.9e19, "3.900e+19"),
        ("x", 1e-5, "1.000e-05"),
        ("stderr", 0.0, "–"),
        ("tok_per_s", 135_000.0, "135,000.0"),
        ("x", math.inf, "inf"),
        ("train_seconds", 12_900, "3h35m"),
        ("seconds", 59.94, "59.9s"),
        ("seconds", 59.97, "1m00s"),
        ("seconds", 3599.6, "1h00m"),
        ("seconds", 247, "4m07s"),
        ("x", {"train": 1, "val_bpb": 0.5}, "train 1, validation bits per byte 0.5000"),
        ("x", ["a", "b"], "a, b"),
        ("x", list(range(12)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"),
        ("x", list(range(100)), ", ".join(map(str, range(60))) + ", and 40 more"),
        ("x", [], "–"),
    ],
)
def test_figures_are_formatted_for_people(key, value, shown):
    assert cells.number(key, value) == shown


@given(st.floats(0, 1e6))
def test_no_duration_has_60_seconds_or_minutes(seconds):
    assert not re.search(r"(?<!\d)60(\.0)?[sm]", cells.duration(seconds))


def test_the_stage_says_which_evaluations_failed_and_why(tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    (results / "results.json").write_text("{}")
    made = seal(results, name="results", stage="x")
    full = resolve("tiny").model_dump(mode="json")
    names = {s.name for s in graph.stages(Recipe()) if s.kind != "report"}
    spec = StageSpec(
        run="r",
        stage="report",
        kind="report",
        config={"recipe": "tiny", "full_recipe": full},
        inputs=dict.fromkeys(names - {"base_eval"}, made),
        output_dir=str(tmp_path / "report" / "attempt-1"),
        cache_dir=str(tmp_path / "cache"),
    )
    attempt(tmp_path / "base_eval", 1, [], ended="line 7 of coqa.jsonl is not JSON")
    assert run_stage(spec) == 0
    text = (spec.out / "report" / "report.md").read_text()
    assert "Base model evaluation ended with: line 7 of coqa.jsonl is not JSON" in text
    assert sorted(p.name for p in (spec.out / "report").iterdir()) == [
        "manifest.json",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert "Failed, so their figures are missing: base model evaluation." in text
    assert "reinforcement learning" in text.split("Not part of this run: ")[1]
