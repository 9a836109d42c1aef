"""The dashboard in a real headless Chromium: runs, curves, report, cancel, chat."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tests.browser import needs_chromium
from tests.inference.heart import COUNT, FOREVER, NUMBERS, SELF, SUM, SUMMED, WHO
from tests.inference.server import wait_for
from tests.ui.conftest import Site

pytestmark = needs_chromium


# The order matters: the first test needs a platform without runs, and later tests use the runs of earlier ones.


def test_an_empty_platform_says_how_to_begin(page: Page, site: Site) -> None:
    page.goto(site.url)
    expect(page.locator("#no-runs")).to_contain_text("nanochat submit tiny --watch")
    page.goto(f"{site.url}/chat")
    expect(page.locator("#chat-notice")).to_contain_text("No model to talk to yet")
    expect(page.locator("#send")).to_be_disabled()


def test_a_run_is_seen_from_its_start_to_its_end(page: Page, site: Site) -> None:
    worker = site.submit("watched")
    page.goto(site.url)
    page.get_by_role("link", name="watched").click()
    expect(page.get_by_role("heading", name="watched")).to_be_visible()
    worker.finish("data", "tok_train", "tok_eval")
    work = worker.begin("base_train")
    work.train(steps=30, total=60)
    base = page.get_by_role("row").filter(has_text="base_train")
    expect(base.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "50")
    work.succeed()
    worker.finish("base_eval", "mid_train", "chat_eval_mid", "sft", "chat_eval_sft", "report")
    expect(page.locator("h1 + [data-status=SUCCEEDED]")).to_be_visible()


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
