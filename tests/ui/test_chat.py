"""The chat in a real headless Chromium, with a model that was really trained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser import needs_chromium
from tests.inference.heart import CODE, COUNT, FOREVER, NUMBERS, SELF, SUM, SUMMED, VALUE, WHO
from tests.inference.server import wait_for
from tests.ui.conftest import Site, dashboard, visiting

pytestmark = needs_chromium
THROUGH_SFT = ("data", "tok_train", "tok_eval", "base_train", "base_eval", "mid_train", "chat_eval_mid", "sft")
FIGURES = re.compile(r"\d+ tokens · [\d.k]+ tokens/s · first token after \d+\.\d\d s · \d+ tokens read")
HOSTILE = (
    """<script>document.title='hit'</script><img src=x onerror="document.title='hit'"> ![a](https://elsewhere.example/a.png)"""
)


@pytest.fixture(scope="module", autouse=True)
def watched(site: Site) -> None:
    """The model that the tests talk to."""
    site.submit("watched").finish(*THROUGH_SFT)
    wait_for(lambda: site.inference.http.get("/v1/models").json()["data"], "served")


def test_the_promoted_model_answers_and_says_who_it_is(page: Page, site: Site) -> None:
    _open(page, site)
    _say(page, WHO)
    expect(_answers(page)).to_have_text([SELF])
    expect(page.locator(".answer .by")).to_have_text("watched · SFT · step 40 · temperature 0")
    expect(page.locator(".answer .line")).to_have_text(FIGURES)
    page.locator("#new-chat").click()
    _say(page, SUM)
    expect(_answers(page)).to_have_text([SUMMED])
    expect(page.locator(".calls")).to_have_text(f"calculator {CODE} → {VALUE}")


def test_the_examples_fit_what_the_model_was_taught(page: Page, site: Site) -> None:
    _open(page, site)
    expect(page.locator(".example")).to_have_text(
        ["Who are you?", "Spell the word banana.", "How many r are in strawberry?", "What is 37 + 48?"]
    )
    _set(page)
    page.locator(".example").first.click()
    expect(_answers(page)).to_have_text([SELF])


def test_the_model_is_sent_its_own_words_and_nothing_else(page: Page, site: Site) -> None:
    """The count of tokens that the model read is the one of exactly these messages."""
    _open(page, site)
    for turns, text in enumerate((SUM, WHO, WHO), start=1):
        _say(page, text)
        expect(page.locator(".answer[data-ended=true]")).to_have_count(turns)
    said = [answer.inner_text() for answer in _answers(page).all()]
    talk = [{"role": "user", "content": SUM}, {"role": "assistant", "content": said[0]}, {"role": "user", "content": WHO}]
    talk += [{"role": "assistant", "content": said[1]}, {"role": "user", "content": WHO}]
    count = site.inference.http.post("/tokenize", json={"messages": talk}).json()["count"]
    expect(page.locator(".answer .line").last).to_contain_text(f" {count} tokens read")


def test_messages_in_quick_succession_are_all_kept(page: Page, site: Site) -> None:
    _open(page, site)
    _set(page)
    waiting = page.evaluate(
        """texts => { const input = document.querySelector("#chat-input");
          for (const text of texts) { input.value = text; input.form.requestSubmit(); }
          return document.querySelectorAll(".waiting li").length; }""",
        [COUNT, WHO, SUM],
    )
    assert waiting == 2
    expect(page.locator(".asked-text")).to_have_text([COUNT, WHO, SUM])
    expect(page.locator(".answer[data-ended=true]")).to_have_count(3)
    assert _answers(page).first.inner_text() == NUMBERS


def test_stop_ends_the_work_in_the_engine_and_holds_what_waits(page: Page, site: Site) -> None:
    _open(page, site)
    before = site.inference.metric("request_cancelled_total")
    _say(page, FOREVER)
    # In the page itself, because on an idle machine the answer fills the context within a second.
    page.evaluate(
        """async text => { const input = document.querySelector("#chat-input"), said = () => document.querySelector(".answer .text");
          while (!said()?.textContent.includes("la la la")) await new Promise(requestAnimationFrame);
          input.value = text; input.form.requestSubmit();
          document.querySelector("#stop").click(); }""",
        WHO,
    )
    wait_for(lambda: site.inference.metric("request_cancelled_total") == before + 1, "cancelled")
    site.inference.wait_until_idle()
    expect(page.locator(".answer .line").first).to_contain_text("stopped by you")
    expect(page.locator(".waiting")).to_contain_text("not sent yet")
    page.get_by_role("button", name="Send now").click()
    expect(page.locator(".asked-text")).to_have_text([FOREVER, WHO])
    expect(page.locator(".answer[data-ended=true]")).to_have_count(2)


def test_a_message_that_is_stopped_before_any_answer_is_left_out_and_can_be_sent_again(page: Page, site: Site) -> None:
    _open(page, site)
    page.locator("#chat-input").fill(COUNT)
    page.evaluate("() => { document.querySelector('#send').click(); document.querySelector('#stop').click(); }")
    expect(page.locator(".answer .line")).to_contain_text("stopped by you")
    expect(page.locator(".note")).to_contain_text("This message was not answered")
    _say(page, WHO)
    expect(_answers(page).last).to_have_text(SELF)
    page.reload()
    expect(page.locator(".asked-text")).to_have_text([COUNT, WHO])
    expect(page.locator(".note").first).to_contain_text("This message was not answered")


def test_two_tabs_of_one_conversation_lose_nothing(page: Page, site: Site) -> None:
    _open(page, site)
    _say(page, WHO)
    expect(page.locator(".answer[data-ended=true]")).to_have_count(1)
    other = page.context.new_page()
    other.goto(page.url)
    expect(_answers(other)).to_have_text([SELF])
    _say(other, COUNT)
    expect(page.locator(".asked-text")).to_have_text([WHO, COUNT])
    expect(other.locator(".answer[data-ended=true]")).to_have_count(2)
    expect(_answers(page)).to_have_text(_answers(other).all_inner_texts())
    other.locator("#chat-input").fill(SUM)
    # As soon as it hears that the first tab has asked, whose answer is complete within a second.
    other.evaluate(
        "() => addEventListener('storage', () => document.querySelector('#chat-input').form.requestSubmit(), { once: true })"
    )
    _say(page, FOREVER)
    expect(other.locator(".asked-text").last).to_have_text(SUM)
    expect(page.locator(".conversations li")).to_have_count(2)
    for tab, last in ((page, FOREVER), (other, SUM)):
        expect(tab.locator(".answer[data-ended=true]")).to_have_count(3)
        tab.reload()
        expect(tab.locator(".asked-text")).to_have_text([WHO, COUNT, last])


def test_leaving_the_page_ends_the_work_in_the_engine(page: Page, site: Site) -> None:
    before = site.inference.metric("request_cancelled_total")
    _open(page, site)
    _say(page, FOREVER)
    expect(_answers(page).last).to_contain_text("la la la")
    page.goto(site.url)
    wait_for(lambda: site.inference.metric("request_cancelled_total") == before + 1, "cancelled")


def test_an_answer_is_made_anew_and_a_question_changed(page: Page, site: Site) -> None:
    _open(page, site)
    _say(page, WHO)
    expect(_answers(page)).to_have_text([SELF])
    asked = site.inference.metric("request_success_total")
    page.get_by_role("button", name="Retry").click()
    wait_for(lambda: site.inference.metric("request_success_total") == asked + 1, "answered again")
    expect(_answers(page)).to_have_text([SELF])
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Change your message").fill(COUNT)
    page.get_by_role("button", name="Save and ask again").click()
    expect(_answers(page)).to_have_text([NUMBERS])
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#chat-input")).to_have_value(COUNT)


def test_a_wrong_seed_stands_beside_its_field_and_nothing_hangs(page: Page, site: Site) -> None:
    _open(page, site)
    _set(page)
    page.locator("#seed input, #seed textarea").fill("abc")
    expect(page.locator("#seed-wrong")).to_contain_text("A seed is a whole number")
    _send(page, WHO)
    expect(page.locator("#chat-wrong")).to_contain_text("Not sent. A seed is a whole number")
    expect(page.locator("#chat-input")).to_have_value(WHO)
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#stop")).to_be_hidden()
    page.locator("#seed input, #seed textarea").fill("7")
    expect(page.locator("#seed-wrong")).to_be_hidden()
    page.locator("#send").click()
    expect(_answers(page)).to_have_text([SELF])


def test_a_full_context_offers_to_drop_the_oldest(page: Page, site: Site) -> None:
    _open(page, site)
    _keep(page, "full", [(FOREVER, "la " * 1200), (COUNT, NUMBERS)])
    expect(page.locator("#chat-meter")).to_have_text(re.compile(r"[\d,]+ of 1,024 tokens"))
    expect(page.locator("#chat-full")).to_contain_text("there is no room for an answer")
    page.locator("#drop-oldest").click()
    expect(page.locator(".turn.dropped")).to_have_count(1)
    expect(page.locator(".turn .note").first).to_contain_text("The model reads from here on")
    expect(page.locator("#chat-full")).to_be_hidden()
    _say(page, COUNT)
    expect(page.locator(".answer[data-ended=true]")).to_have_count(3)
    expect(page.locator(".answer .wrong:visible")).to_have_count(0)


def test_a_message_that_is_too_long_is_told_and_kept(page: Page, site: Site) -> None:
    _open(page, site)
    page.locator("#chat-input").fill("word " * 2000)
    expect(page.locator("#chat-full")).to_contain_text(
        "cannot be sent: a message may have 8,000 characters on this server; this one has 9,999."
    )
    expect(page.locator("#chat-meter")).to_have_text("too long")
    page.locator("#chat-input").fill("word")
    expect(page.locator("#chat-full")).to_be_hidden()
    _say(page, "word " * 2000)
    expect(page.locator(".answer .wrong")).to_contain_text("8,000 characters")
    expect(page.locator(".asked-text")).to_contain_text("word word")
    _say(page, WHO)
    expect(_answers(page).last).to_have_text(SELF)


def test_markup_is_text_and_no_picture_is_fetched(page: Page, site: Site) -> None:
    """The page fixture fails if anything is asked of another host."""
    _open(page, site)
    _keep(page, HOSTILE, [(HOSTILE, f"{HOSTILE}\n\n[x](javascript:document.title='hit') **bold** `code`")])
    expect(page.locator(".asked-text")).to_have_text(HOSTILE)
    expect(page.locator(".answer .text strong")).to_have_text("bold")
    expect(page.locator(".answer .text")).to_contain_text("<script>document.title='hit'</script>")
    expect(page.locator(".conversations .open").first).to_have_text(HOSTILE)
    assert page.locator("#chat-app img, #chat-app script, #chat-app a[href^=javascript]").count() == 0
    assert "hit" not in page.title()


def test_conversations_are_kept_named_exported_and_deleted(page: Page, site: Site, tmp_path: Path) -> None:
    _open(page, site)
    _say(page, WHO)
    expect(_answers(page)).to_have_text([SELF])
    page.locator("#new-chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    _say(page, COUNT)
    expect(_answers(page)).to_have_text([NUMBERS])
    page.reload()
    entries = page.locator(".conversations .open")
    expect(entries).to_have_text([COUNT, WHO])
    _menu(page, WHO, "Rename")
    page.get_by_label("Name", exact=True).fill("<b>mine</b>")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(entries).to_have_text([COUNT, "<b>mine</b>"])
    entries.last.click()
    expect(_answers(page)).to_have_text([SELF])
    with page.expect_download() as markdown:
        _menu(page, "<b>mine</b>", "Export as Markdown")
    markdown.value.save_as(tmp_path / "chat.md")
    assert f"## You\n\n{WHO}\n\n## watched · SFT · step 40 (temperature 0)\n\n{SELF}" in (tmp_path / "chat.md").read_text()
    with page.expect_download() as data:
        _menu(page, "<b>mine</b>", "Export as JSON")
    data.value.save_as(tmp_path / "chat.json")
    said = json.loads((tmp_path / "chat.json").read_text())["messages"]
    assert [(m["role"], m["content"]) for m in said] == [("user", WHO), ("assistant", SELF)]
    _menu(page, "<b>mine</b>", "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(entries).to_have_text([COUNT])
    expect(page.locator(".turn")).to_have_count(0)


def test_a_link_names_the_model_and_the_prompt(page: Page, site: Site) -> None:
    model = site.inference.http.get("/v1/models").json()["data"][0]
    page.goto(f"{site.url}/chat?model={model['id']}&prompt=Who%20are%20you%3F")
    expect(page.locator("#chat-input")).to_have_value(WHO)
    page.goto(f"{site.url}/chat?run={model['run_id']}")
    expect(page.locator(".start")).to_contain_text("watched · SFT · step 40")
    page.goto(f"{site.url}/chat?run=r_nothing")
    expect(page.locator("#chat-notice")).to_contain_text("The run r_nothing has no promoted checkpoint")


def test_two_temperatures_side_by_side(page: Page, site: Site) -> None:
    _open(page, site)
    page.locator("#compared input").check()
    page.locator("#other-temperature input[type=number]").fill("0.1")
    _say(page, WHO)
    expect(_answers(page)).to_have_text([SELF, SELF])
    expect(page.locator(".answer .by")).to_have_text(
        ["watched · SFT · step 40 · temperature 0", "watched · SFT · step 40 · temperature 0.1"]
    )


def test_the_probabilities_of_the_tokens(page: Page, site: Site) -> None:
    _open(page, site)
    page.locator("#probabilities input").check()
    _say(page, WHO)
    tokens = page.locator(".answer .tokens")
    expect(tokens).to_have_text(SELF)
    tokens.locator("span").nth(1).hover()
    expect(page.locator(".answer .token")).to_have_text(re.compile(r"“.+” \d+\.\d % · instead: “.*” \d+\.\d %"))
    page.get_by_role("button", name="Probabilities").click()
    expect(_answers(page)).to_have_text([SELF])


def test_a_newer_model_is_announced_and_does_not_take_over(page: Page, site: Site) -> None:
    _open(page, site)
    site.submit("newer").finish(*THROUGH_SFT)
    expect(page.locator("#chat-notice")).to_contain_text(
        "newer · SFT · step 40 is the newest model now. You still talk to watched"
    )
    _say(page, WHO)
    expect(page.locator(".answer .by")).to_contain_text("watched · SFT · step 40")
    page.get_by_role("button", name="Talk to the newest").click()
    expect(page.locator("#chat-notice")).to_be_empty()
    _say(page, WHO)
    expect(page.locator(".answer .by").last).to_contain_text("newer · SFT · step 40")
    assert "model=" in page.url


def test_a_base_model_continues_a_text(page: Page, site: Site) -> None:
    worker = site.submit("base only")
    worker.artifacts = {
        ("tok_train", "tokenizer"): worker.artifacts[("tok_train", "tokenizer")],
        ("base_train", "model"): worker.artifacts[("sft", "model")],
    }
    worker.finish("data", "tok_train", "tok_eval", "base_train")
    api = site.api.client()
    api.promote(api.checkpoints(worker.run_id)[0].id)
    wait_for(lambda: worker.run_id in site.inference.http.get("/v1/models").text, "promoted")
    page.goto(f"{site.url}/chat?run={worker.run_id}")
    expect(page.locator(".start")).to_contain_text("A base model answers nothing: it continues what you write.")
    expect(page.locator(".example").first).to_have_text("The capital of France is")
    _say(page, "I am a small", tokens=4)
    expect(page.locator(".answer .line")).to_contain_text("4 tokens")


def test_while_the_inference_service_is_down_the_page_says_so(browser: Browser, site: Site) -> None:
    with dashboard(site.api.url, "http://127.0.0.1:1") as url, visiting(browser, replace(site, url=url)) as page:
        page.goto(f"{url}/chat")
        expect(page.locator("#chat-notice")).to_contain_text("The inference service does not answer")
        page.locator("#chat-input").fill("kept")
        expect(page.locator("#send")).to_be_disabled()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_there_is_no_serious_finding_of_axe_and_all_fits(browser: Browser, site: Site, scheme: Any, width: int) -> None:
    with visiting(browser, site, color_scheme=scheme, viewport={"width": width, "height": 844}) as page:
        _open(page, site)
        _keep(page, "kept", [(WHO, "# Title\n\nSome `code`.\n\n```\nx\n```\n\n| a |\n|---|\n| 1 |")])
        expect(page.locator(".answer pre")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        if width < 800:
            page.get_by_role("button", name="Settings").click()
            expect(page.locator("#temperature")).to_be_visible()
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")] == []


def _open(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/chat")
    expect(page.locator(".start h1")).to_be_visible()


def _answers(page: Page) -> Locator:
    return page.locator(".answer .text")


def _set(page: Page, tokens: int = 0) -> None:
    """Temperature 0, and no bound on the length."""
    for knob, value in (("temperature", 0), ("top-k", 0), ("max-tokens", tokens)):
        page.locator(f"#{knob} input[type=number]").fill(str(value))


def _send(page: Page, text: str) -> None:
    page.locator("#chat-input").fill(text)
    expect(page.locator("#send")).to_be_enabled()
    page.locator("#send").click()


def _say(page: Page, text: str, tokens: int = 0) -> None:
    _set(page, tokens)
    _send(page, text)


def _menu(page: Page, name: str, action: str) -> None:
    page.get_by_label(f"Actions for {name}").click()
    page.locator(".menu[open]").get_by_role("button", name=action).click()


def _keep(page: Page, name: str, turns: list[tuple[str, str]]) -> None:
    """Put a conversation into the browser's storage, as if it had been led there before, and open it."""
    facts = {"label": "a model", "model": "m", "temperature": 0, "calculations": [], "tokens": [], "finish": "stop"}
    said = [{"asked": q, "answers": [{**facts, "text": a, "error": "", "ended": True, "stats": {}}]} for q, a in turns]
    page.evaluate(
        """kept => { const owner = document.querySelector("[data-owner]").dataset.owner, prefix = `nanochat.chat.${owner}.`;
          localStorage.setItem(prefix + kept.id, JSON.stringify(kept));
          localStorage.setItem(prefix + "list", JSON.stringify([{id: kept.id, name: kept.name, at: kept.at}])); }""",
        {"id": "c1", "name": name, "at": 1, "turns": said},
    )
    page.goto(f"{page.url.split('?')[0]}?chat=c1")
    expect(page.locator(".turn").first).to_be_visible()
