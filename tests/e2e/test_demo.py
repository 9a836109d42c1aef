"""The whole story on one stack, in this order: a visitor signs in, watches a model train on real text, steers runs, and talks to it."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from openai import OpenAI
from playwright.sync_api import Browser, Page, expect

from client.models import Run
from tests.e2e.demo import SCREENSHOTS, Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

RUN_DEADLINE_S = 720
STAGES = [
    "data",
    "tok_train",
    "tok_eval",
    "base_train",
    "base_eval",
    "mid_train",
    "chat_eval_mid",
    "sft",
    "chat_eval_sft",
    "rl",
    "chat_eval_rl",
    "report",
]


def the_run(demo: Demo) -> Run:
    with demo.client() as client:
        return client.run(next(run.id for run in client.runs() if run.name == "demo"))


@pytest.fixture(scope="module")
def page(demo: Demo, browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    elsewhere: list[str] = []
    page.on("request", lambda r: None if r.url.startswith((demo.ui_url, "data:", "blob:")) else elsewhere.append(r.url))
    yield page
    page.close()
    assert elsewhere == []


def test_a_visitor_signs_in_with_the_key_that_the_demo_names(demo: Demo, page: Page) -> None:
    page.goto(demo.ui_url)
    page.get_by_label("API key").fill(demo.key)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="demo", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("demo")


def test_another_run_is_planned_started_and_cancelled(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.ui_url}/new")
    expect(page.get_by_text("This would be accepted")).to_be_visible()
    page.get_by_label("Name", exact=True).fill("second thoughts")
    page.get_by_role("button", name="Start the run").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("second thoughts")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".run-status [data-status=CANCELLED]")).to_be_visible()


def test_a_failed_run_says_why_and_is_tried_again(demo: Demo, page: Page, tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.txt").write_text("Some words of text.\n" * 2000)
    with demo.client() as client:
        run = client.submit("tiny", {"data.source": {"kind": "folder", "path": str(folder)}}, "moved data")
    shutil.move(folder, tmp_path / "elsewhere")
    page.goto(f"{demo.ui_url}/runs/{run.id}")
    expect(page.locator(".run-status [data-status=FAILED]")).to_be_visible()
    expect(page.locator("main")).to_contain_text(str(folder))
    shutil.move(tmp_path / "elsewhere", folder)
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".run-status [data-status=RUNNING]")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    expect(page.locator(".run-status [data-status=CANCELLED]")).to_be_visible()


def test_the_loss_curve_moves_while_training(demo: Demo, page: Page) -> None:
    until = time.monotonic() + 300
    while not any(s.name == "base_train" and s.latest for s in the_run(demo).stages):
        assert time.monotonic() < until, demo.said()[-3000:]
        assert demo.process.poll() is None, demo.said()[-3000:]
        time.sleep(0.5)
    page.goto(f"{demo.ui_url}/runs/{the_run(demo).id}")
    loss = page.locator(".figures > div", has_text="training loss").locator("b")
    expect(loss).to_be_visible()
    before = loss.inner_text()
    expect(page.locator(".curves canvas").first).to_be_visible()
    expect(loss).not_to_have_text(before)
    page.screenshot(path=SCREENSHOTS / "run-training.png")


def test_the_run_is_paused_and_goes_on(demo: Demo, page: Page) -> None:
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".run-status [data-status=PAUSED]")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator(".run-status [data-status=RUNNING]")).to_be_visible()


def test_the_run_succeeds_through_every_stage(demo: Demo) -> None:
    until = time.monotonic() + RUN_DEADLINE_S
    while (run := the_run(demo)).status not in ("SUCCEEDED", "FAILED", "CANCELLED"):
        assert time.monotonic() < until, demo.said()[-3000:]
        time.sleep(1)
    assert run.status == "SUCCEEDED", [(s.name, s.status, s.reason, s.message) for s in run.stages if s.status != "SUCCEEDED"]
    assert [s.name for s in run.stages] == STAGES
    assert all(s.status == "SUCCEEDED" for s in run.stages)


def test_training_learned_something(demo: Demo) -> None:
    with demo.client() as client:
        series = {s.key: s.points for s in client.metrics(the_run(demo).id, stage="base_train", keys=["val_bpb", "loss"])}
    bpb = [p.last for p in series["val_bpb"]]
    assert bpb[-1] < 0.9 * bpb[0], f"untrained {bpb[0]}, trained {bpb[-1]}"
    assert series["loss"][-1].last < series["loss"][0].last


def test_the_report_names_what_was_measured(demo: Demo) -> None:
    with demo.client() as client:
        markdown = client.report(the_run(demo).id)
    (SCREENSHOTS / "report.md").write_text(markdown, encoding="utf-8")
    for word in ("ARC-Easy", "GSM8K", "HumanEval", "coqa", "cl100k") if demo.with_hub_data else ("Spelling",):
        assert word.lower() in markdown.lower()
    assert "| " in markdown


def test_the_report_and_the_scores_are_on_the_page_of_the_run(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.ui_url}/runs/{the_run(demo).id}?tab=report")
    expect(page.get_by_role("tabpanel")).to_contain_text("bits per byte", ignore_case=True)
    page.get_by_role("tab", name="Evals").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("Spelling", ignore_case=True)
    expect(page.locator(".run-status [data-status=SUCCEEDED]")).to_be_visible()
    page.screenshot(path=SCREENSHOTS / "run-finished.png")


def test_two_runs_are_compared(demo: Demo, page: Page) -> None:
    page.goto(demo.ui_url)
    for name in ("demo", "second thoughts"):
        page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True)).get_by_role("checkbox").check()
    page.get_by_role("link", name="Compare").last.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compare")
    expect(page.locator("main")).to_contain_text("num_iterations")


def test_an_answer_streams_into_the_chat(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.ui_url}/runs/{the_run(demo).id}")
    page.get_by_role("link", name="Chat", exact=True).last.click()
    box = page.locator("#chat-input")
    expect(box).to_be_visible()
    page.evaluate(
        """() => {
            window.seen = new Set();
            const note = () => document.querySelectorAll('.answer .text').forEach(e => window.seen.add(e.innerText));
            new MutationObserver(note).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    box.fill("Who are you?")
    page.locator("#send").click()
    expect(page.locator(".answer[data-ended=true]")).to_have_count(1)
    assert page.evaluate("window.seen.size") >= 3
    assert page.locator(".answer .text").inner_text().strip()
    expect(page.locator(".answer .by")).to_contain_text("demo")
    page.screenshot(path=SCREENSHOTS / "chat.png")


def test_a_question_is_changed_and_two_temperatures_are_compared(page: Page) -> None:
    page.get_by_role("button", name="Edit").click()
    page.get_by_label("Change your message").fill("Spell the word apple.")
    page.get_by_role("button", name="Save and ask again").click()
    expect(page.locator(".asked-text")).to_have_text(["Spell the word apple."])
    expect(page.locator(".answer[data-ended=true]")).to_have_count(1)
    page.locator("#compared input").check()
    page.locator("#chat-input").fill("What is 2 + 2?")
    page.locator("#send").click()
    expect(page.locator(".answer[data-ended=true]")).to_have_count(3)


def test_signing_out_ends_the_visit(demo: Demo, page: Page) -> None:
    page.goto(demo.ui_url)
    page.locator("#account summary").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()
    page.goto(f"{demo.ui_url}/chat")
    expect(page.get_by_label("API key")).to_be_visible()


def test_the_official_client_talks_to_the_model(demo: Demo) -> None:
    openai = OpenAI(base_url=f"{demo.inference_url}/v1", api_key=demo.key)
    models = [m.id for m in openai.models.list()]
    assert models
    chunks = openai.chat.completions.create(
        model=models[0], messages=[{"role": "user", "content": "Spell the word apple."}], max_tokens=24, stream=True
    )
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_the_demo_asked_a_question_and_got_an_answer(demo: Demo) -> None:
    until = time.monotonic() + 120
    while "Ctrl-C" not in demo.said():
        assert time.monotonic() < until, demo.said()[-3000:]
        time.sleep(0.5)
    said = demo.said()
    assert re.search(r"you +Who are you\?\n +model +\S", said), said[-2000:]
    assert demo.ui_url in said


def test_ctrl_c_stops_every_process(demo: Demo) -> None:
    started = psutil.Process(demo.process.pid).children(recursive=True)
    assert len(started) > 5
    demo.process.send_signal(signal.SIGINT)
    assert demo.process.wait(timeout=60) == 0, demo.said()[-2000:]
    _, alive = psutil.wait_procs(started, timeout=15)
    assert not alive
    assert not (demo.home / "stack.json").exists()
