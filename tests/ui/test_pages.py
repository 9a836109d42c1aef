"""The dashboard in a real headless Chromium: runs, curves, report, cancel, chat."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import needs_chromium
from tests.inference.heart import COUNT, FOREVER, NUMBERS, SELF, SUM, SUMMED, WHO
from tests.inference.server import wait_for
from tests.ui.conftest import Site

pytestmark = needs_chromium
PATIENCE_MS = 60_000
SHOTS = Path(__file__).parents[1] / "artifacts" / "ui"


@pytest.fixture
def page(browser: Browser, site: Site, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new page. The test fails when the page requests anything from another machine; a screenshot is kept."""
    elsewhere: list[str] = []
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page.on("request", lambda r: None if r.url.startswith((site.url, "data:", "blob:")) else elsewhere.append(r.url))
    yield page
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{request.node.name}.png", full_page=True)
    page.close()
    assert elsewhere == []


# The order matters: the first test needs a platform without runs, and later tests use the runs of earlier ones.


def test_an_empty_platform_says_how_to_begin(page: Page, site: Site) -> None:
    page.goto(site.url)
    expect(page.locator("#no-runs")).to_contain_text(f"curl -X POST {site.api.url}/v1/runs")
    page.goto(f"{site.url}/chat")
    expect(page.locator("#chat-notice")).to_contain_text("No model to talk to yet")
    expect(page.locator("#send")).to_be_disabled()


def test_the_form_checks_and_starts_a_run(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.locator("#new-recipe input").click()
    page.get_by_role("option", name="speedrun").click()
    page.locator("#plan-run").click()
    expect(page.locator("#plan")).to_contain_text("speedrun is accepted: 10 stages, 561M parameters")
    page.locator("#new-recipe input").click()
    page.get_by_role("option", name="tiny").click()
    page.locator("#new-overrides textarea").fill("base.nonsense = 1")
    page.locator("#plan-run").click()
    expect(page.locator(".toast-body")).to_contain_text("base.nonsense")
    page.locator("#new-overrides textarea").fill("base.num_iterations = 7")
    page.locator("#plan-run").click()
    expect(page.locator("#plan")).to_contain_text("base_train: 7 steps")
    page.locator("#new-name input, #new-name textarea").fill("<b>from the form</b>")
    page.locator("#start-run").click()
    expect(page.locator("#run-table tr[aria-selected=true]")).to_contain_text("<b>from the form</b>")
    expect(page.locator("#run-headline")).to_contain_text("from the form")
    run = next(iter(site.api.client().runs()))
    assert site.api.client().run(run.id).config["base"]["num_iterations"] == 7


def test_cancel(page: Page, site: Site) -> None:
    worker = site.submit("to be cancelled")
    page.goto(f"{site.url}/?run={worker.run_id}")
    expect(page.locator("#run-headline")).to_contain_text("to be cancelled")
    page.locator("#cancel-run").click()
    expect(page.locator("#run-headline [data-status=CANCELLED]")).to_be_visible()
    expect(page.locator("#cancel-run")).to_be_hidden()


def test_a_failed_run_says_why(page: Page, site: Site) -> None:
    worker = site.submit("bad data")
    worker.begin("data").fail("x.parquet has no column `text`; name it")
    page.goto(f"{site.url}/?run={worker.run_id}")
    expect(page.locator("#run-headline")).to_contain_text("data failed: BAD_INPUT: x.parquet has no column `text`; name it")
    expect(page.locator("#stage-table tr[data-stage=data]")).to_contain_text("Failed")
    page.get_by_role("tab", name="Report").click()
    expect(page.locator("#report")).to_contain_text("Data ended with: x.parquet has no column `text`; name it")


def test_a_run_is_seen_from_its_start_to_its_report(page: Page, browser: Browser, site: Site) -> None:
    worker = site.submit("watched")
    page.goto(site.url)
    expect(page.locator("#run-table tr[aria-selected=true]")).to_contain_text("watched")
    worker.finish("data", "tok_train", "tok_eval")
    work = worker.begin("base_train")
    work.train(steps=30, total=60)
    work.log("step 29 | loss 4.9")
    base = page.locator("#stage-table tr[data-stage=base_train]")
    expect(base).to_contain_text("30 / 60 steps")
    expect(base.locator("[role=progressbar]")).to_have_attribute("aria-valuenow", "50.0")
    expect(page.locator("#loss-plot .js-line").first).to_be_visible()
    page.get_by_role("tab", name="Log").click()
    expect(page.locator("#log")).to_contain_text("step 29 | loss 4.9")
    work.succeed()
    worker.finish("base_eval", "mid_train", "chat_eval_mid", "sft", "chat_eval_sft", "report")
    expect(page.locator("#run-headline [data-status=SUCCEEDED]")).to_be_visible()
    page.get_by_role("tab", name="Report").click()
    expect(page.locator("#report h1")).to_have_text("Report card")
    link = page.locator("#report a").first
    expect(link).to_have_text("The whole report, with curves, as a page of its own")
    report = browser.new_page()
    report.goto(f"{site.url}/{link.get_attribute('href')}")
    expect(report.locator("h1")).to_have_text("watched")
    expect(report.locator("#training figcaption").first).to_contain_text("Training loss")
    report.close()
    page.get_by_role("tab", name="Curves").click()
    expect(page.locator("#loss-plot")).to_contain_text("Midtraining")
    expect(page.locator("#loss-plot")).to_contain_text("SFT")
    shown = page.locator("#loss-plot text[class^=y][class$=title]")
    expect(shown.nth(1)).to_be_visible()  # those of the upper and the lower plot
    titles = shown.evaluate_all("titles => titles.map(title => title.getBoundingClientRect().toJSON())")
    for i, a in enumerate(titles):
        for b in titles[:i]:  # a gap of 8 px at least: two titles in one line read as one
            beside = a["x"] + a["width"] + 8 <= b["x"] or b["x"] + b["width"] + 8 <= a["x"]
            assert beside or a["y"] + a["height"] + 8 <= b["y"] or b["y"] + b["height"] + 8 <= a["y"], titles


def test_a_run_is_chosen_with_a_click_and_kept_in_the_address(page: Page, site: Site) -> None:
    page.goto(site.url)
    page.locator("#run-table tr[data-run]", has_text="bad data").click()
    expect(page.locator("#run-headline")).to_contain_text("bad data")
    assert re.search(r"run=r_\w+", page.url)
    page.reload()
    expect(page.locator("#run-headline")).to_contain_text("bad data")


def test_the_promoted_model_answers_in_the_chat(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/chat")
    _say(page, WHO)
    answer = page.locator("#chat-log [data-testid=bot]").last
    expect(answer).to_have_text(SELF)
    expect(page.locator("#chat-stats")).to_contain_text(re.compile(r"\d+ tokens · [\d.k]+ tokens/s · first token after"))
    page.locator("#clear").click()
    expect(page.locator("#chat-log [data-testid=bot]")).to_have_count(0)
    _say(page, SUM)
    expect(page.locator("#chat-log [data-testid=bot]").last).to_have_text(SUMMED)
    expect(page.locator("#chat-log")).to_contain_text("Calculator")
    page.locator("#model input").click()
    page.get_by_role("option", name="watched · sft · step 40").click()
    page.locator("#clear").click()
    _say(page, WHO)
    expect(page.locator("#chat-log [data-testid=bot]").last).to_have_text(SELF)


def test_stop_ends_the_work_in_the_engine(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/chat")
    before = site.inference.metric("request_cancelled_total")
    _say(page, FOREVER)
    expect(page.locator("#chat-log [data-testid=bot]").last).to_contain_text("la la la")
    page.locator("#stop").click()
    wait_for(lambda: site.inference.metric("request_cancelled_total") == before + 1, "cancelled")
    site.inference.wait_until_idle()
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#chat-stats")).to_have_text("stopped")
    page.locator("#clear").click()
    _say(page, WHO)
    expect(page.locator("#chat-log [data-testid=bot]").last).to_have_text(SELF)


def test_leaving_the_page_ends_the_work_in_the_engine(page: Page, site: Site) -> None:
    before = site.inference.metric("request_cancelled_total")
    page.goto(f"{site.url}/chat")
    _say(page, FOREVER)
    expect(page.locator("#chat-log [data-testid=bot]").last).to_contain_text("la la la")
    page.goto(site.url)
    wait_for(lambda: site.inference.metric("request_cancelled_total") == before + 1, "cancelled")


def test_an_answer_is_made_anew_and_a_question_changed(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/chat")
    _say(page, WHO)
    answers = page.locator("#chat-log [data-testid=bot]")
    expect(answers).to_have_text([SELF])
    asked = site.inference.metric("request_success_total")
    page.get_by_label("Retry", exact=True).click()
    wait_for(lambda: site.inference.metric("request_success_total") == asked + 1, "answered again")
    expect(answers).to_have_text([SELF])
    page.get_by_label("Edit", exact=True).click()
    page.locator("#chat-log textarea").fill(COUNT)
    page.get_by_label("Submit", exact=True).click()
    expect(answers).to_have_text([NUMBERS])
    page.get_by_label("Undo", exact=True).click()
    expect(answers).to_have_count(0)
    expect(page.locator("#chat-input textarea")).to_have_value(COUNT)


def _say(page: Page, text: str) -> None:
    """Send a message, to be answered at temperature 0 with no limit on the length."""
    for knob, value in (("temperature", "0"), ("top-k", "0"), ("max-tokens", "0")):
        page.locator(f"#{knob} input[type=number]").fill(value)
    page.locator("#chat-input textarea").fill(text)
    expect(page.locator("#send")).to_be_enabled()
    page.locator("#send").click()
