"""One POST trains a model on real text; its curve is on the Runs page; its chat answers. One stack, tests in this order."""

import re
import signal
import time
from collections.abc import Iterator

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
        runs = list(client.runs())
        return client.run(runs[0].id)


@pytest.fixture(scope="module")
def page(demo: Demo, browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.goto(demo.ui_url)
    yield page
    page.close()  # otherwise it keeps polling a dashboard that is gone


def test_the_runs_page_shows_the_loss_curve_while_training(demo: Demo, page: Page) -> None:
    until = time.monotonic() + 300
    while not any(s.name == "base_train" and s.latest for s in the_run(demo).stages):
        assert time.monotonic() < until, demo.said()[-3000:]
        assert demo.process.poll() is None, demo.said()[-3000:]
        time.sleep(0.5)
    page.locator("#run-table").get_by_text("demo").first.click()
    expect(page.locator("#stage-table")).to_contain_text("base_train", timeout=20_000)
    curve = page.locator("#loss-plot .scatterlayer .trace path.js-line").first
    expect(curve).to_be_visible(timeout=60_000)
    drawn = curve.get_attribute("d") or ""
    assert len(re.findall(r"[ML]", drawn)) >= 1
    page.screenshot(path=SCREENSHOTS / "runs-training.png", full_page=True)


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


def test_the_report_is_on_the_runs_page(demo: Demo, page: Page) -> None:
    page.reload()
    page.locator("#run-table").get_by_text("demo").first.click()
    page.get_by_role("tab", name="Report").click()
    expect(page.locator("#report")).to_contain_text("bits per byte", ignore_case=True, timeout=30_000)
    page.screenshot(path=SCREENSHOTS / "runs-report.png", full_page=True)


def test_an_answer_streams_into_the_chat(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.ui_url.rstrip('/')}/chat")
    box = page.locator("#chat-input textarea")
    expect(box).to_be_visible(timeout=30_000)
    page.evaluate(
        """() => {
            window.seen = new Set();
            const log = document.querySelector('#chat-log');
            const note = () => log.querySelectorAll('.bot .prose, .bot .md, .bot').forEach(e => window.seen.add(e.innerText));
            new MutationObserver(note).observe(log, {childList: true, subtree: true, characterData: true});
        }"""
    )
    box.fill("Who are you?")
    page.locator("#send").click()
    expect(page.locator("#chat-log .bot").last).not_to_be_empty(timeout=60_000)
    page.wait_for_function("() => window.seen.size >= 3", timeout=60_000)
    expect(page.locator("#send")).to_be_visible(timeout=60_000)
    answer = page.locator("#chat-log .bot").last.inner_text().strip()
    assert answer
    page.screenshot(path=SCREENSHOTS / "chat.png", full_page=True)


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
