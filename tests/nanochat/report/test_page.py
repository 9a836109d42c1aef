"""The report as an HTML file in a real headless Chromium: what a reader sees, in both themes, on a phone and without a network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from nanochat.report import build, page, record, write
from nanochat.report.card import Report
from tests.browser import needs_chromium
from tests.nanochat.report.runs import EVIL, MACHINE, TOOL, a_run, attempt, card, falling, model_artifact, report_of, results

SHOTS = Path(__file__).parents[2] / "artifacts" / "report"
pytestmark = needs_chromium
POLICY = "Content Security Policy"  # in the message about what a page tried and may not do
Show = Callable[..., Page]


@pytest.fixture
def show(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Show]:
    """`show(report, width=1280, scheme="light")` opens its page. The test fails if a page asks for anything or logs an error."""
    asked: list[str] = []
    pages: list[Page] = []

    def open_page(report: Report, *, width: int = 1280, scheme: str = "light") -> Page:
        file = tmp_path / f"{len(pages)}.html"
        file.write_text(page.render(report), encoding="utf-8")
        opened = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        opened.on("request", lambda r: None if r.url in (file.as_uri(), "data:,") else asked.append(r.url))
        opened.on("console", lambda m: asked.append(m.text) if m.type == "error" and POLICY not in m.text else None)
        opened.goto(file.as_uri())
        pages.append(opened)
        return opened

    yield open_page
    SHOTS.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", request.node.name).strip("-")
    for number, opened in enumerate(pages):
        opened.screenshot(path=SHOTS / f"{name}-{number}.png", full_page=True)
        opened.close()
    assert asked == []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A d20 run with curves, samples and lineage, whose pretraining was resumed and once was not finite."""
    stage = tmp_path_factory.mktemp("run") / "base_train"
    attempt(stage, 1, falling(300), ended="the lease was lost")
    points = [*falling(900, 281), (950, {"loss": float("nan")}), *[(s, {"val_bpb": 3 - s / 500}) for s in range(0, 901, 150)]]
    newest = attempt(stage, 2, points, resumed_from="attempt-1/checkpoints/step_000280")
    model_artifact(stage.parent / "model", newest)
    cards = [card(name, i, figures) for i, (name, figures) in enumerate(results().items())]
    base = next(c for c in cards if c.name == "base_train")
    base.record = record.of(newest)
    base.record.samples = [record.Sample(step=s, prompt="Gold is", text=t) for s, t in ((2000, " the the"), (9000, " a metal"))]
    return report_of(cards, name="d20 of our own")


def test_a_reader_sees_the_run_at_a_glance(show: Show, trained: Report) -> None:
    seen = show(trained)
    expect(seen.locator("h1")).to_have_text("d20 of our own")
    expect(seen.locator(".lede")).to_have_text(
        "A 561M-parameter language model trained on 11.2B tokens with 8 × NVIDIA H100 80GB HBM3 in 1h10m for $28.00."
    )
    expect(seen.locator(".tiles")).to_contain_text("0.2000")
    summary = seen.locator("#summary table")
    expect(summary.locator("tr", has_text="Bits per byte, text")).to_contain_text("0.8121")
    expect(summary.locator("tr", has_text="ARC-Easy")).to_contain_text("0.4480 ± 0.050")
    expect(seen.locator("#summary .notes")).to_contain_text("attempt 2 went on from step 280")
    expect(seen.locator("#published tr.ours")).to_contain_text("0.2000")
    names = seen.locator("#published tbody th").all_inner_texts()
    assert names.index("GPT-2 large") < names.index("This run") < names.index("GPT-2 medium")
    assert {"GPT-2 XL", "nanochat d20", "nanochat d26", "nanochat d32"} <= set(names)
    expect(seen.locator("#time")).to_contain_text("At $24.00 an hour for 8 x H100: $28.00.")
    expect(seen.locator("#lineage")).to_contain_text(trained.lineage[0].sha256)


def test_curves_have_titles_units_axes_and_values_under_the_pointer(show: Show, trained: Report) -> None:
    seen = show(trained)
    captions = seen.locator("#training figcaption").all_inner_texts()
    assert captions[:2] == ["Training loss nats per token", "Validation bits per byte"]
    assert {"Learning-rate multiplier", "Training speed tokens per second"} <= set(captions)
    assert "Model FLOPs utilization % of the bf16 peak" in captions
    loss = seen.locator("#training figure").first
    expect(loss.locator("svg")).to_have_attribute(
        "aria-label", re.compile(r"by step\. From 10\.\d+ at step 1 to 2\.\d+ at step 900")
    )
    assert loss.locator("text.y").count() >= 3
    expect(loss.locator("text.name")).to_have_text("step")
    assert loss.locator(".hit").last.locator("title").text_content() == "step 950: not finite"
    assert loss.locator(".gap").count() == 1
    assert loss.locator(".resumed").count() == 1
    box = loss.locator("svg").bounding_box()
    assert box
    for line in loss.locator("path.line").all():
        inner = line.bounding_box()
        assert inner
        assert box["x"] <= inner["x"]
        assert inner["x"] + inner["width"] <= box["x"] + box["width"] + 1
        assert box["y"] <= inner["y"]
        assert inner["y"] + inner["height"] <= box["y"] + box["height"] + 1


def test_bars_have_their_error_and_the_level_of_chance(show: Show, trained: Report) -> None:
    seen = show(trained)
    rows = seen.locator("#evaluations table").nth(1).locator("tbody tr")
    easy = rows.nth(1)
    expect(easy).to_contain_text("SFT")
    expect(easy).to_contain_text("0.448")
    expect(easy.locator(".pm")).to_have_text("± 0.050")
    bar, chance = easy.locator("rect").bounding_box(), easy.locator(".chance").bounding_box()
    whole, whisker = easy.locator("svg").bounding_box(), easy.locator(".whisker").bounding_box()
    assert bar
    assert chance
    assert whole
    assert whisker
    assert bar["width"] / whole["width"] == pytest.approx(0.448, abs=0.01)
    assert (chance["x"] + chance["width"] / 2 - whole["x"]) / whole["width"] == pytest.approx(0.25, abs=0.01)
    assert (whisker["x"] + whisker["width"] / 2 - whole["x"]) / whole["width"] == pytest.approx(0.448, abs=0.01)


def test_the_chance_of_a_task_is_what_its_figures_imply(show: Show) -> None:
    tasks = {
        "known": {"accuracy": 0.5, "centered": 0.3, "n": 50, "rows": 50, "baseline": 0.2},
        "implied": {"accuracy": 0.625, "centered": 0.25, "n": 50, "rows": 50},
        "unknown": {"accuracy": 1.0, "centered": 1.0, "n": 50, "rows": 100},
    }
    seen = show(a_run(base_eval={"core": {"core": None, "tasks": tasks, "missing": ["coqa"], "partial": [], "estimate": True}}))
    rows = [row.split("\t") for row in seen.locator("#evaluations table").first.locator("tbody tr").all_inner_texts()]
    assert [(cells[0], cells[-2], cells[-1]) for cells in rows] == [
        ("known", "0.2", "50"),
        ("implied", "0.5", "50"),
        ("unknown", "–", "50 of 100"),
    ]
    assert seen.locator("#stages").get_by_text("implied").count() == 0  # the figures are not listed twice


def test_tool_calls_are_shown_as_calls_with_their_results(show: Show, trained: Report) -> None:
    answer = show(trained).locator("#says .answer", has_text="banana")
    expect(answer.locator(".tool code").nth(0)).to_have_text("'banana'.count('a')")
    expect(answer.locator(".tool.result code")).to_have_text("3")
    assert "<|" not in (answer.text_content() or "")


def test_answers_of_reinforcement_learning_are_shown_with_their_rewards(show: Show) -> None:
    question = "<|bos|><|user_start|>What is 2+3?<|user_end|><|assistant_start|>"
    told = [{"step": s, "prompt": question, "text": t, "reward": r} for s in (1, 5) for t, r in ((TOOL, 1.0), ("none", 0.0))]
    rl = build.card("rl", "done", results={"reward": 0.5}, record=record.StageRecord(samples=record.samples(told)))
    cards = show(report_of([rl])).locator("#says .card")
    assert cards.locator(".about").all_inner_texts() == [f"step {s} reward {r}" for s in (5, 1) for r in (1, 0)]
    assert set(cards.locator(".question").all_inner_texts()) == {"What is 2+3?"}
    expect(cards.first.locator(".tool.result code")).to_have_text("3")


def test_markup_in_names_samples_and_answers_is_shown_as_text_and_never_runs(show: Show) -> None:
    evil = results(sft={"val_loss": 1.0, EVIL: EVIL}, base_eval={"samples": [{"prompt": EVIL, "text": EVIL}]})
    recipe = {"name": EVIL, "description": EVIL, "base": {"x": EVIL}}
    made = build.report(
        EVIL, recipe, [card(n, i, f) for i, (n, f) in enumerate(evil.items())], MACHINE | {"cpu": EVIL}, name=EVIL
    )
    seen = show(made)
    expect(seen.locator("h1")).to_have_text(EVIL)
    expect(seen.locator("#says .card").first).to_contain_text("<script>")
    assert seen.locator("script, img, body b").count() == 0
    assert seen.evaluate("document.styleSheets.length") == 1
    assert seen.title() == f"{EVIL} – report card"
    # Even a script that got in would not run: the page's policy forbids it.
    add = "s => { const e = document.createElement('script'); e.textContent = s; document.body.append(e); }"
    seen.evaluate(add, "document.title = 'owned'")
    assert seen.title() != "owned"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_there_is_no_serious_finding_of_axe(show: Show, trained: Report, scheme: str, width: int) -> None:
    seen = show(trained, width=width, scheme=scheme)
    found = Axe().run(seen).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def test_a_phone_needs_no_scrolling_to_the_side_and_print_has_no_navigation(show: Show, trained: Report) -> None:
    seen = show(trained, width=390)
    assert seen.evaluate("document.documentElement.scrollWidth") == 390
    sizes = seen.locator(".plot text").evaluate_all("t => t.map(e => e.getBoundingClientRect().height)")
    assert min(sizes) >= 10
    seen.emulate_media(media="print")
    seen.set_viewport_size({"width": 680, "height": 1000})  # A4 less its margins, in CSS pixels
    assert seen.evaluate("document.documentElement.scrollWidth") == 680
    expect(seen.locator("nav")).to_be_hidden()
    assert seen.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_the_two_themes_differ(show: Show, trained: Report) -> None:
    dark, light = (
        show(trained, scheme=s).evaluate("getComputedStyle(document.body).backgroundColor") for s in ("dark", "light")
    )
    assert dark != light


# -- runs that are not whole --


def training_only(tmp_path: Path, points: list[tuple[int, dict[str, float]]]) -> Report:
    newest = attempt(tmp_path / "base_train", 1, points, ended="the disk is full")
    failed = build.card("base_train", "failed", why="the disk is full", record=record.of(newest))
    return report_of([failed], status="A stage failed.")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "No metric of this stage was recorded."),
        ([(7, {"loss": 2.5})], "2.5000 at step 7."),
        ([(s, {"loss": float("nan")}) for s in range(3)], "No finite value."),
        ([(1, {"loss": 3.0}), (2, {"loss": 3.0})], "From 3.0000 at step 1"),
        ([(1, {"loss": 3.0}), (2, {"loss": float("inf")}), (3, {"loss": 1e30})], "to 1.000e+30 at step 3"),
    ],
    ids=["no point", "one point", "only NaN", "constant", "a hole"],
)
def test_a_training_that_failed_has_a_report(
    show: Show, tmp_path: Path, points: list[tuple[int, dict[str, float]]], said: str
) -> None:
    seen = show(training_only(tmp_path, points))
    expect(seen.locator(".partial")).to_have_text("Partial report. A stage failed.")
    expect(seen.locator("#summary .notes")).to_contain_text("Base model training ended with: the disk is full")
    expect(seen.locator("#summary .notes")).to_contain_text("Not reached: data, tokenizer training")
    expect(seen.locator("#summary .notes")).to_contain_text("Not part of this run: reinforcement learning")
    assert said in page.render(training_only(tmp_path / "again", points))
    assert seen.locator("#evaluations").count() == 0
    assert seen.locator("#says").count() == 0
    expect(seen.locator("#time")).to_contain_text("No cost")
    assert not re.search(r"(?<![\w.])nan(?![\w.])", seen.locator("#training").inner_html())


def test_a_run_without_anything_has_a_report(show: Show) -> None:
    seen = show(build.report("r_0", {"name": "tiny"}, [], {}))
    expect(seen.locator("#time")).to_contain_text("No stage has recorded its time.")
    expect(seen.locator("#stages")).to_contain_text("No stage has begun.")
    found = Axe().run(seen).response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_a_hundred_thousand_points_fit_into_less_than_a_megabyte(tmp_path: Path) -> None:
    stage = attempt(tmp_path / "base_train", 1, falling(25_000))
    recorded = record.of(stage)
    keys = (
        "loss",
        "reward",
        "val_bpb",
        "val_loss",
        "pass_at_1",
        "core",
        "lrm",
        "tok_per_s",
        "mfu",
        "mem_gib",
        "grad_norm",
        "mmlu",
    )
    cards = [card(name, i, figures) for i, (name, figures) in enumerate(results().items())]
    for c in cards:
        c.record = recorded.model_copy(update={"curves": [recorded.curves[0].model_copy(update={"key": k}) for k in keys]})
    write.all_forms(report_of(cards), tmp_path)
    sizes = {p.name: p.stat().st_size for p in tmp_path.glob("report.*")}
    assert set(sizes) == {"report.html", "report.md", "report.json"}
    assert max(sizes.values()) < 1_000_000, sizes


def test_the_page_of_a_whole_run_is_small() -> None:
    assert len(page.render(a_run()).encode()) < 120_000


@pytest.mark.parametrize(
    ("params", "begins"),
    [(85e6, "An 85M"), (11.2e9, "An 11.2B"), (186e6, "A 186M"), (110e6, "A 110M"), (1.8e9, "A 1.8B"), (18e6, "An 18M")],
)
def test_the_first_sentence_has_the_article_of_the_spoken_number(params: float, begins: str) -> None:
    assert page.lede(a_run(base_train={"params": int(params)})).startswith(f"{begins}-parameter language model")
