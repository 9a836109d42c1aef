"""The tokenizer playground in a real headless Chromium."""

from __future__ import annotations

from urllib.parse import quote

from playwright.sync_api import Page, expect

from tests.browser import needs_chromium
from tests.ui.conftest import Site
from tests.ui.test_chat import THROUGH_SFT

pytestmark = needs_chromium
TEXT = "naïve 日本語 <b>fox</b>"


def test_a_text_is_shown_as_the_tokens_that_the_model_reads(page: Page, site: Site) -> None:
    site.submit("for its tokenizer").finish(*THROUGH_SFT)
    site.inference.wait_until_ready()
    page.goto(f"{site.url}/tokenizer?text={quote(TEXT)}")
    found = site.inference.http.post("/tokenize", json={"prompt": TEXT, "add_special_tokens": False}).json()
    tokens = page.get_by_label("First model").locator(".token-text span")
    expect(tokens).to_have_count(found["count"])
    expect(page.get_by_label("First model").locator("dl")).to_contain_text(f"bytes{len(TEXT.encode())}characters{len(TEXT)}")
    tokens.first.hover()
    expect(page.get_by_label("First model").get_by_role("status")).to_contain_text(f"id {found['tokens'][0]} · ")
    assert page.locator("main b").count() == 0
    expect(page.get_by_label("Second model").locator(".token-text")).to_be_hidden()
    page.get_by_label("Beside it").select_option(index=1)
    expect(page.get_by_label("Second model").locator(".token-text span")).to_have_count(found["count"])
    page.get_by_label("Text").fill("fox")
    expect(tokens.first).to_contain_text("f")
    assert "text=fox" in page.url
    assert "beside=" in page.url


def test_what_the_service_refuses_stands_beside_the_model(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/tokenizer")
    page.get_by_label("Text").fill("x" * 40_000)
    expect(page.locator(".field .wrong:visible")).to_contain_text("32")
    expect(page.get_by_label("First model").locator(".token-text")).to_be_hidden()  # the tokens of the text before
