"""The tabs of a run's page in Chromium: what a person sees there of a run with failures, evaluations, checkpoints and a long log."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from client.overrides import parse
from nanochat.contract.contract import Artifact, seal
from tests.browser import needs_chromium
from tests.ui.conftest import Site, visiting
from tests.ui.manual_worker import ManualWorker, Work

pytestmark = needs_chromium

LINES = 12_000
FILLED = "table, .samples, .timeline li, .window .line, .graph, .tree"  # what a tab shows once it is there
MARKUP = "<img src=x onerror=\"document.title='hit'\">"
PROMPT = "The capital of France is"
TASKS = {"arc_easy": (0.30, 0.46), "gsm8k": (0.02, 0.05)}


@pytest.fixture(scope="module")
def trained() -> dict[tuple[str, str], Artifact]:
    """No model is trained: nobody talks to one here."""
    return {}


@pytest.fixture(scope="module")
def run(site: Site) -> str:
    """A run that failed once in pretraining, went on and was evaluated. Its report, which nobody has made yet, tells what is known so far."""
    made = site.api.client().submit("tiny", {"seed": 7, "base.num_iterations": 60}, name="in tabs")
    worker = ManualWorker(site.api.ledger, made.id, site.folder / made.id, dict(site.trained))
    for stage, figures in RESULTS.items():
        worker.artifacts[stage, "results"] = _results(worker.folder, stage, figures)
    worker.finish("data", "tok_train", "tok_eval")
    first = worker.begin("base_train")
    first.train(steps=20, total=60)
    first.log(
        "\x1b[31mred\x1b[0m start", MARKUP, "UserWarning: torch.compile is off", *(f"step {i} | loss 4.2" for i in range(LINES))
    )
    _sampled(first, 0, " of the of the")
    first.tell(_checkpoint(worker, "early", 20, 1.31))
    first.log("ValueError: the shard ends early")
    first.fail("x.parquet ends early; fetch it again")
    site.api.http.post(f"/v1/runs/{made.id}/retry", json={}).raise_for_status()
    second = worker.begin("base_train")
    second.train(steps=60)
    _sampled(second, 60, f" Paris. {MARKUP}")
    second.tell(_checkpoint(worker, "later", 40, 1.21))
    second.succeed()
    worker.finish("base_eval", "mid_train", "chat_eval_mid", "sft", "chat_eval_sft")
    return made.id


RESULTS: dict[str, dict[str, Any]] = {
    "base_eval": {
        "bpb": {"train": 1.1, "val": 1.2},
        "core": {
            "core": None,
            "tasks": {"piqa": {"accuracy": 0.6, "centered": 0.2, "stderr": 0.02, "n": 500, "rows": 1838, "baseline": 0.5}},
            "missing": ["coqa"],
            "failed": {"coqa": "coqa.jsonl line 12 has no field `context`"},
            "partial": [],
            "estimate": True,
        },
    },
    **{
        f"chat_eval_{name}": {
            "tasks": {
                task: {"accuracy": figures[i], "stderr": 0.01, "n": 400, "rows": 400, "skipped": 0, "baseline": 0.0}
                for task, figures in TASKS.items()
            },
            "chatcore": None,
            "failed": {"mmlu": "no data for its split test"},
        }
        for i, name in enumerate(("mid", "sft"))
    },
}


def _results(folder: Path, stage: str, figures: dict[str, Any]) -> Artifact:
    made = folder / "figures" / stage
    made.mkdir(parents=True)
    (made / "results.json").write_text(json.dumps(figures))
    return seal(made)


def _sampled(work: Work, step: int, text: str) -> None:
    work.tell({"kind": "sample", "step": step, "prompt": PROMPT, "text": text})


def _checkpoint(worker: ManualWorker, name: str, step: int, bpb: float) -> dict[str, Any]:
    folder = worker.folder / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights " * 1000)
    made = seal(folder)
    return {
        "kind": "checkpoint",
        "step": step,
        "path": made.path,
        "sha256": made.sha256,
        "bytes": 8000,
        "final": False,
        "val_bpb": bpb,
    }


def _open(page: Page, site: Site, run: str, tab: str, more: str = "") -> Locator:
    page.goto(f"{site.url}/runs/{run}?tab={tab}{more}")
    return page.get_by_role("tabpanel")


def test_evaluations_stand_side_by_side_with_their_change_and_what_is_missing(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "evals")
    row = panel.get_by_role("row", name="ARC-Easy")
    expect(row).to_contain_text("30.0 %")
    expect(row).to_contain_text("46.0 % ± 1.0")
    expect(row).to_contain_text("▲ +16.0")
    expect(panel.get_by_role("row", name="piqa")).to_contain_text("0.200 ± 0.040")
    expect(panel).to_contain_text("coqa failed: coqa.jsonl line 12 has no field `context`")
    expect(panel).to_contain_text("MMLU: no data for its split test")


def test_samples_of_two_steps_stand_side_by_side(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "samples")
    row = panel.get_by_role("row", name=PROMPT)
    expect(row.get_by_role("cell")).to_have_text([" of the of the", f" Paris. {MARKUP}"])
    panel.get_by_label("Right: step").select_option(label="Pretraining, step 0")
    expect(row.get_by_role("cell").first).to_have_text(" of the of the")
    expect(panel).to_contain_text("only one step")
    assert "samples_b=base_train" in page.url
    assert page.title() != "hit"


def test_a_long_sample_is_shown_to_its_end(page: Page, site: Site) -> None:
    worker = site.submit("talkative")
    worker.finish("data", "tok_train", "tok_eval")
    _sampled(worker.begin("base_train"), 0, "\n".join(f"line {i}" for i in range(30)))
    cell = _open(page, site, worker.run_id, "samples").get_by_role("cell").first
    expect(cell).to_contain_text("line 29")
    assert cell.evaluate("cell => cell.scrollHeight <= cell.clientHeight"), "nothing of it is cut off"


def test_a_checkpoint_is_promoted_pinned_and_deleted_only_when_nothing_needs_it(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "checkpoints")
    later = panel.get_by_role("row", name="step 40").filter(has_text="1.21")
    expect(later).to_contain_text("best")
    later.get_by_role("button", name="Promote").click()
    expect(later).to_contain_text("Promoted")
    found = site.api.client().checkpoints(run)
    best = next(c for c in found if c.val_bpb == 1.21)
    expect(later.get_by_role("link", name="Chat")).to_have_attribute("href", f"/chat?model={best.id}")
    later.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(panel.get_by_role("alert")).to_contain_text(
        "it is promoted, and the inference service may be serving it; demote it first"
    )
    later.get_by_role("button", name="Demote").click()
    expect(later).not_to_contain_text("Promoted")
    later.get_by_role("button", name=re.compile("^Pin")).click()
    expect(later).to_contain_text("Pinned")
    early = panel.get_by_role("row", name="step 20")
    early.get_by_role("button", name="Files").click()
    with page.expect_download() as download:
        panel.get_by_role("link", name="model.safetensors").click()
    assert download.value.path().read_bytes() == b"weights " * 1000
    early.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    expect(early).to_have_count(0)
    later.get_by_role("button", name="Resume from").click()
    page.get_by_label("Name of the new run").fill("on from 40")
    page.get_by_role("dialog").get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("on from 40")
    assert site.api.client().run(page.url.split("/runs/")[1].split("?")[0]).forked_from == run


def test_a_viewer_sees_checkpoints_but_no_buttons_that_change_them(browser: Browser, site: Site, run: str) -> None:
    viewer = site.api.http.post("/v1/keys", json={"name": "looks only", "role": "viewer"}).json()["secret"]
    with visiting(browser, site, viewer) as page:
        panel = _open(page, site, run, "checkpoints")
        expect(panel.get_by_role("button", name="Files").first).to_be_visible()
        expect(panel.get_by_role("button", name=re.compile("Promote|Pin|Delete|Resume"))).to_have_count(0)


def test_the_recipe_is_searched_compared_and_copied_as_a_command(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "config", "&config_view=recipe")
    rows = panel.get_by_role("table").get_by_role("rowheader")
    expect(rows.filter(has_text=re.compile(r"^seed$"))).to_be_visible()
    expect(panel.get_by_role("row", name="base.num_iterations")).to_contain_text("60")
    command = panel.locator(".command code").inner_text()
    words = shlex.split(command)
    assert words[:3] == ["nanochat", "submit", "tiny"]
    overrides = parse([word for word in words[3:] if word != "--set"])
    client = site.api.client()
    assert client.submit("tiny", overrides, name="again").config == client.run(run).config
    panel.get_by_label("What is shown").select_option("all")
    panel.get_by_label("Search the recipe").fill("vocab")
    expect(panel.locator(".leaf")).to_have_text(re.compile("vocab_size"))


def test_events_are_told_in_words_with_who_asked(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "events")
    expect(panel).to_contain_text("Pretraining has failed")
    expect(panel).to_contain_text("x.parquet ends early; fetch it again")
    expect(panel.locator("li", has_text="Asked for another try")).to_contain_text("by admin")
    assert not re.search(r"[A-Z]+_[A-Z]+", panel.inner_text()), "a code without words"
    panel.get_by_label("Kind of event").select_option(label="Checkpoints")
    panel.get_by_label("Stage", exact=True).select_option(label="Pretraining")
    expect(panel.locator("li").first).to_contain_text(re.compile("checkpoint", re.I))
    page.reload()
    expect(panel.locator("li").first).to_contain_text(re.compile("checkpoint", re.I))
    expect(panel.locator("li", has_text="failed")).to_have_count(0)


def test_a_long_log_is_searched_filtered_and_followed(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "log", f"&log_of={'base_train%201'}&log_events=no")
    lines = panel.locator(".line")
    expect(lines.last).to_contain_text("ValueError: the shard ends early")
    assert lines.count() < 150, "only what is seen is in the page"
    follow = panel.get_by_role("button", name="Follow")
    expect(follow).to_have_attribute("aria-pressed", "true")
    panel.get_by_role("log").evaluate("node => node.scrollTop = 0")
    expect(follow).to_have_attribute("aria-pressed", "false")
    expect(lines.first).to_contain_text("red start")
    expect(panel.locator(".line", has_text="<img src=x")).to_be_visible()
    assert page.title() != "hit"
    panel.get_by_label("Search the log").fill("STEP 11999")
    expect(lines).to_have_count(1)
    expect(panel.locator("mark")).to_have_text("step 11999")
    panel.get_by_label("Search the log").fill("")
    panel.get_by_label("Level").select_option(label="Warnings and errors")
    expect(lines).to_have_count(2)
    panel.get_by_label("Level").select_option("")
    with page.expect_download() as download:
        panel.get_by_role("button", name="Download").click()
    assert len(download.value.path().read_text().splitlines()) > LINES


def test_new_lines_appear_and_events_fill_a_log_that_nobody_writes(page: Page, site: Site) -> None:
    worker = site.submit("quiet")
    work = worker.begin("data")
    panel = _open(page, site, worker.run_id, "log")
    expect(panel.locator(".line.event", has_text="is at work").first).to_be_visible()
    work.log("a line at last")
    expect(panel.locator(".line.line", has_text="a line at last")).to_be_visible()


def test_lineage_leads_from_the_data_to_the_model(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "lineage")
    sft = panel.get_by_role("region", name="SFT", exact=True)
    expect(sft).to_contain_text("reads")
    expect(sft).to_contain_text("model")
    expect(panel.locator("svg path").first).to_be_attached()
    left, right = (panel.get_by_role("region", name=name, exact=True).bounding_box() for name in ("Data", "SFT"))
    assert left
    assert right
    assert left["x"] + left["width"] < right["x"]


def test_the_report_is_short_and_links_to_the_whole(page: Page, site: Site, run: str) -> None:
    panel = _open(page, site, run, "report")
    expect(panel.get_by_role("row", name="ARC-Easy")).to_contain_text("46.0 %")
    box = panel.bounding_box()
    assert box
    assert box["height"] < 3500
    panel.locator("summary", has_text="Base model training").click()
    expect(panel.locator("details[open]").first).to_contain_text("Attempt 1")
    with page.expect_popup() as popup:
        panel.get_by_role("link", name="As a page of its own").click()
    expect(popup.value.locator("h1")).to_have_text("in tabs")
    with page.expect_download() as download:
        panel.get_by_role("link", name="Markdown").click()
    assert "in tabs" in download.value.path().read_text()


TABS = ("evals", "samples", "checkpoints", "config", "events", "log", "lineage", "report")


def test_every_tab_fits_a_phone(browser: Browser, site: Site, run: str) -> None:
    with visiting(browser, site, viewport={"width": 390, "height": 844}) as page:
        for tab in TABS:
            panel = _open(page, site, run, tab)
            expect(panel.locator(FILLED).first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 1280), ("dark", 320)])
def test_no_tab_has_a_serious_fault_for_those_who_see_or_hear_it_otherwise(
    browser: Browser, site: Site, run: str, theme: Literal["light", "dark"], width: int
) -> None:
    with visiting(browser, site, color_scheme=theme, viewport={"width": width, "height": 900}, bypass_csp=True) as page:
        for tab in TABS:
            panel = _open(page, site, run, tab)
            expect(panel.locator(FILLED).first).to_be_visible()
            panel.evaluate("panel => panel.querySelectorAll('details').forEach(part => part.open = true)")
            found = Axe().run(page, context="[role=tabpanel]").response["violations"]
            assert [v for v in found if v["impact"] in ("serious", "critical")] == [], tab
