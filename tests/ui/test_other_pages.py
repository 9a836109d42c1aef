"""The pages about many things at once, in Chromium: the cluster, comparisons, sweeps, keys."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from controlplane import workers
from tests.browser import needs_chromium
from tests.ui.conftest import Site, visiting
from tests.ui.manual_worker import ManualWorker

pytestmark = needs_chromium

BEFORE_BASE = ("data", "tok_train", "tok_eval")
PHONE = {"width": 390, "height": 844}


def trained(site: Site, name: str, steps: int, **overrides: Any) -> str:
    """A run that has reported `steps` steps of pretraining. Returns its id."""
    run = site.api.client().submit("tiny", {key.replace("__", "."): value for key, value in overrides.items()}, name=name)
    worker = ManualWorker(site.api.ledger, run.id, site.folder / run.id, site.trained)
    worker.finish(*BEFORE_BASE)
    worker.begin("base_train").train(steps)
    return run.id


def sweep_of(site: Site, **body: Any) -> dict[str, Any]:
    answer = site.api.http.post("/v1/sweeps", json={"recipe": "tiny", **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


# -- keys --


def test_an_admin_makes_a_key_whose_secret_is_shown_once_and_revokes_it(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/keys")
    press(page, "Make a key")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("ci <b>bot</b>")
    dialog.get_by_label("Role").select_option("viewer")
    dialog.get_by_label("Project").fill("Not A Project")
    press(page, "Make the key")
    expect(dialog).to_be_visible()  # the field says what a project is called
    dialog.get_by_label("Project").fill("research")
    dialog.get_by_label("Expires").select_option("7")
    press(page, "Make the key")
    secret = page.get_by_label("Secret of ci <b>bot</b>").input_value()
    found = site.api.http.get("/v1/runs", headers={"Authorization": f"Bearer {secret}"})
    assert found.status_code == 200
    row = page.get_by_role("row").filter(has_text="ci <b>bot</b>")
    expect(row).to_contain_text("research")
    assert secret not in page.url
    press(page, "I have kept it")
    assert secret not in page.content()
    page.reload()
    expect(row).to_be_visible()
    assert secret not in page.content()

    row.get_by_role("button", name="Revoke").click()
    expect(page.get_by_role("dialog")).to_contain_text("This cannot be taken back")
    press(page, "Back")
    assert site.api.http.get("/v1/runs", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    row.get_by_role("button", name="Revoke").click()
    press(page, "Revoke the key")
    expect(row).to_have_count(0)
    assert site.api.http.get("/v1/runs", headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    page.get_by_label(re.compile("revoked and expired")).check()
    expect(row).to_contain_text("Revoked")
    page.reload()
    expect(row).to_contain_text("Revoked")


def test_the_own_key_and_the_last_lasting_admin_key_are_protected_with_words(browser: Browser, page: Page, site: Site) -> None:
    page.goto(f"{site.url}/keys")
    own = page.get_by_role("row").filter(has_text="yours")
    expect(own).to_contain_text("You are signed in with it")
    expect(own.get_by_role("button")).to_have_count(0)
    until = "2099-01-01T00:00:00Z"
    second = site.api.http.post("/v1/keys", json={"name": "second admin", "role": "admin", "expires_at": until}).json()
    with visiting(browser, site, second["secret"]) as other:
        other.goto(f"{site.url}/keys")
        first = other.get_by_role("row").filter(has_text="The last admin key that never expires")
        expect(first.get_by_role("button")).to_have_count(0)
        expect(other.get_by_role("row").filter(has_text="second admin")).to_contain_text("yours")


def test_an_expiry_is_changed(page: Page, site: Site) -> None:
    key = site.api.http.post("/v1/keys", json={"name": "for a week"}).json()
    page.goto(f"{site.url}/keys")
    page.get_by_role("button", name="Change the expiry of for a week").click()
    page.get_by_label("Expires").fill("2031-05-06T07:08")
    press(page, "Set the expiry")
    expect(page.get_by_role("row").filter(has_text="for a week")).to_contain_text("2031")
    listed = site.api.http.get("/v1/keys").json()["items"]
    assert next(one for one in listed if one["id"] == key["id"])["expires_at"].startswith("2031-05-0")


def test_a_webhook_is_made_switched_off_and_deleted(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/keys")
    expect(page.get_by_text("No webhooks")).to_be_visible()
    press(page, "Make a webhook")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("alerts <b>here</b>")
    dialog.get_by_label("Address").fill("http://127.0.0.1/hook")
    dialog.get_by_text("Which events").click()
    dialog.get_by_label("run status").uncheck()
    dialog.get_by_label("budget warning").check()
    dialog.get_by_label("promoted", exact=True).check()
    press(page, "Make the webhook")
    expect(dialog.get_by_role("alert").filter(has_text="url")).to_be_visible()  # what the API says of the address
    assert site.api.http.get("/v1/webhooks").json()["items"] == []
    dialog.get_by_label("Address").fill("https://93.184.215.14/hook?token=sesame")
    dialog.get_by_label("Only of runs with the labels").fill("a, b")
    press(page, "Make the webhook")
    secret = page.get_by_label("Secret of alerts <b>here</b>").input_value()
    assert secret.startswith("whsec_")
    [hook] = site.api.http.get("/v1/webhooks").json()["items"]
    assert (set(hook["kinds"]), hook["labels"], hook["format"]) == ({"promoted", "budget_warning"}, ["a", "b"], "json")
    press(page, "I have kept it")
    assert secret not in page.content()
    row = page.get_by_role("table", name="Webhooks").get_by_role("row").filter(has_text="alerts <b>here</b>")
    expect(row).to_contain_text("https://93.184.215.14")
    assert "sesame" not in page.content()
    row.get_by_role("button", name="Switch off").click()
    expect(row.get_by_role("button", name="Switch on")).to_be_visible()
    row.get_by_role("button", name="Delete").click()
    press(page, "Delete the webhook")
    expect(page.get_by_text("No webhooks")).to_be_visible()
    assert site.api.http.get("/v1/webhooks").json()["items"] == []


def test_who_is_no_admin_is_told_so(browser: Browser, site: Site) -> None:
    key = site.api.http.post("/v1/keys", json={"name": "looker", "role": "viewer"}).json()
    with visiting(browser, site, key["secret"]) as page:
        page.goto(f"{site.url}/keys")
        expect(page.get_by_text("Only admins manage keys")).to_be_visible()
        page.goto(f"{site.url}/cluster")
        expect(page.get_by_role("heading", name="Cluster")).to_be_visible()
        expect(page.get_by_role("button", name=re.compile("^Drain"))).to_have_count(0)
        expect(page.get_by_role("button", name="Look for them")).to_have_count(0)


# -- cluster --


def test_the_cluster_shows_what_each_worker_does_and_why_others_wait(page: Page, site: Site) -> None:
    run_id = trained(site, "at <i>work</i>", 30)
    site.submit("waits behind it")
    page.goto(f"{site.url}/cluster")
    machine = page.get_by_role("article").filter(has_text="manual-gpu")
    expect(machine).to_contain_text("1 of 64 slots in use")
    work = machine.get_by_role("link", name="at <i>work</i>")
    expect(work).to_have_attribute("href", f"/runs/{run_id}")
    row = page.get_by_role("region", name="Queue").get_by_role("row").filter(has_text="waits behind it")
    expect(row).to_contain_text("a worker has a free slot")
    expect(row.get_by_role("cell", name="Data", exact=True)).to_be_visible()
    expect(machine).to_contain_text("Pretraining")
    expect(page.locator("main")).not_to_contain_text("base_train")


def test_a_worker_is_drained_and_takes_stages_again(page: Page, site: Site) -> None:
    with site.api.ledger.begin() as session:
        workers.register(session, "box-7", queue="gpu", hostname="box", gpus=1, gpu_name="NVIDIA H100")
    page.goto(f"{site.url}/cluster")
    page.get_by_role("button", name="Drain box-7").click()
    page.get_by_label(re.compile("stop with a checkpoint")).check()
    press(page, "Drain it")
    machine = page.get_by_role("article").filter(has_text="box-7")
    expect(machine).to_contain_text("Draining")
    expect(machine).to_contain_text("1 × NVIDIA H100")
    page.get_by_role("button", name="Let box-7 take stages again").click()
    expect(machine).to_contain_text("Idle")


def test_checkpoints_that_nothing_needs_are_listed_before_they_are_marked(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/cluster")
    press(page, "Look for them")
    expect(page.get_by_text("Every checkpoint is needed")).to_be_visible()
    expect(page.get_by_role("button", name="Mark them for deletion")).to_be_hidden()


# -- compare --


def test_runs_are_compared_and_the_link_can_be_shared(page: Page, site: Site) -> None:
    first = trained(site, "shallow", 40, model__depth=2)
    second = trained(site, "deep", 60, model__depth=6, base__optim__matrix_lr=0.03)
    page.goto(f"{site.url}/compare?run={first}")
    expect(page.get_by_text("Add a second run")).to_be_visible()
    page.get_by_label("Add a run").fill("deep")
    page.get_by_role("list", name="Runs found").get_by_role("button", name=re.compile("deep")).click()
    differences = page.get_by_role("region", name="Differences between the recipes")
    expect(differences.get_by_role("row").filter(has_text="depth")).to_contain_text("26")
    expect(differences.get_by_role("row").filter(has_text="matrix_lr")).to_contain_text("0.03")
    expect(differences).not_to_contain_text("seq_len")
    expect(page.get_by_role("region", name="Table of scores")).to_contain_text("GPU hours")
    expect(page.locator("figure.plot canvas")).to_have_count(2)
    assert page.url == f"{site.url}/compare?run={first}&run={second}"
    page.reload()
    expect(differences.get_by_role("row").filter(has_text="depth")).to_contain_text("26")
    page.get_by_role("button", name="Remove shallow").click()
    expect(page.get_by_text("Add a second run")).to_be_visible()
    assert page.url == f"{site.url}/compare?run={second}"


def test_what_cannot_be_compared_is_named(page: Page, site: Site) -> None:
    ids = [site.submit(f"many {i}").run_id for i in range(11)]
    page.goto(f"{site.url}/compare?run=r_0000000000000000&run=<script>&{'&'.join(f'run={one}' for one in ids)}")
    expect(page.get_by_text("There is no run “r_0000000000000000”")).to_be_visible()
    expect(page.get_by_text("There is no run “<script>”")).to_be_visible()
    expect(page.get_by_text("Ten runs are the most")).to_contain_text(ids[-1])
    page.get_by_role("button", name="Remove <script>").click()
    expect(page.get_by_text("There is no run “<script>”")).to_have_count(0)
    page.goto(f"{site.url}/compare")
    expect(page.get_by_text("Choose the runs to compare")).to_be_visible()


# -- leaderboard --


def test_finished_runs_stand_beside_published_models(page: Page, site: Site) -> None:
    worker = site.submit("finished <i>one</i>")
    worker.finish(*(stage["name"] for stage in site.api.http.get(f"/v1/runs/{worker.run_id}").json()["stages"]))
    page.goto(f"{site.url}/leaderboard")
    own = page.get_by_role("row").filter(has_text="finished <i>one</i>")
    expect(own.get_by_role("link")).to_have_attribute("href", f"/runs/{worker.run_id}")
    reference = page.get_by_role("row").filter(has_text="GPT-2 XL").first
    expect(reference).to_contain_text("reference")
    expect(reference).to_contain_text("0.2565")
    page.get_by_label("Published models beside ours").uncheck()
    expect(reference).to_have_count(0)
    page.reload()
    expect(own).to_be_visible()
    expect(reference).to_have_count(0)


# -- sweeps --


def test_a_sweep_shows_its_best_run_and_gives_its_table_as_csv(page: Page, site: Site) -> None:
    sweep = sweep_of(site, name="sizes", grid={"model.depth": [2, 4], "base.optim.matrix_lr": [0.01, 0.02]})
    for place, item in enumerate(sweep["items"][:3]):
        worker = ManualWorker(site.api.ledger, item["run_id"], site.folder / item["run_id"], site.trained)
        worker.finish(*BEFORE_BASE)
        worker.begin("base_train").train(40 + 30 * place)
    best = sweep["items"][2]
    page.goto(f"{site.url}/sweeps")
    page.get_by_role("link", name="sizes").click()
    expect(page.get_by_role("heading", name="sizes")).to_be_visible()
    table = page.get_by_role("table", name="Runs of the sweep")
    row = table.get_by_role("row").filter(has_text="★")
    expect(row).to_have_count(1)
    expect(row.get_by_role("link")).to_have_attribute("href", f"/runs/{best['run_id']}")
    expect(page.locator("svg .line")).to_have_count(3)
    expect(page.locator("figure.plot canvas")).to_have_count(1)
    table.get_by_role("button", name=re.compile("^Best")).click()
    expect(table.get_by_role("row").nth(1)).to_contain_text("★")
    with page.expect_download() as download:
        press(page, "Table as CSV")
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert [row["model.depth"] for row in rows] == ["2", "2", "4", "4"]
    expect(page.get_by_role("link", name="Compare all 4")).to_have_attribute("href", re.compile(f"run={best['run_id']}"))


def test_ranges_of_a_sweep_are_dragged_or_typed_and_the_table_follows(page: Page, site: Site) -> None:
    sweep = sweep_of(site, name="brushed", grid={"model.depth": [2, 4, 6]})
    for place, item in enumerate(sweep["items"]):
        worker = ManualWorker(site.api.ledger, item["run_id"], site.folder / item["run_id"], site.trained)
        worker.finish(*BEFORE_BASE)
        worker.begin("base_train").train(40 + 30 * place)
    page.goto(f"{site.url}/sweeps/{sweep['id']}")
    rows = page.get_by_role("table", name="Runs of the sweep").locator("tbody tr")
    expect(rows).to_have_count(3)
    grip = page.locator(".grip[data-axis='model.depth']")
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    assert box is not None
    x = box["x"] + 3

    def drag(begin: float, end: float) -> None:
        page.mouse.move(x, box["y"] + begin * box["height"])
        page.mouse.down()
        page.mouse.move(x, box["y"] + end * box["height"], steps=3)
        page.mouse.up()

    drag(0.7, 0.3)  # around the middle, where depth is 4
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("4")
    expect(page.locator(".parallel .line:not(.left-out)")).to_have_count(1)
    expect(page.get_by_text("1 of 3 runs lie within the chosen ranges")).to_be_visible()
    drag(0.3, -0.2)  # beyond the end, where it is 6
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("6")
    drag(0.5, 0.5)  # a click takes the range back
    expect(rows).to_have_count(3)
    page.get_by_text("Ranges as numbers").click()
    page.get_by_label("model.depth from").press_sequentially("4")
    expect(rows).to_have_count(2)
    page.get_by_label("model.depth to").press_sequentially("5")
    expect(rows).to_have_count(1)
    expect(page.get_by_role("link", name=re.compile("^Compare (all|the best)"))).to_be_hidden()
    serious = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
    assert not serious, [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious]
    press(page, "Show all runs")
    expect(rows).to_have_count(3)
    expect(page.get_by_label("model.depth from")).to_have_value("")


def test_a_sweep_is_paused_resumed_cancelled_and_deleted(page: Page, site: Site) -> None:
    sweep = sweep_of(site, name="short-lived", depths=[2, 4])
    page.goto(f"{site.url}/sweeps/{sweep['id']}")
    press(page, "Pause")
    expect(page.locator(".page-head")).to_contain_text("Paused")
    press(page, "Resume")
    expect(page.locator(".page-head")).to_contain_text("Running")
    press(page, "Cancel")
    press(page, "Back")
    assert site.api.http.get(f"/v1/sweeps/{sweep['id']}").json()["status"] == "RUNNING"
    press(page, "Cancel")
    press(page, "Cancel the sweep")
    expect(page.locator(".page-head")).to_contain_text("Finished")
    press(page, "Delete")
    press(page, "Delete it all")
    expect(page).to_have_url(f"{site.url}/sweeps")
    assert site.api.http.get(f"/v1/sweeps/{sweep['id']}").status_code == 404


def test_a_sweep_that_is_deleted_elsewhere_is_said_to_be_gone(page: Page, site: Site) -> None:
    sweep = sweep_of(site, name="deleted elsewhere", depths=[2, 4])
    page.goto(f"{site.url}/sweeps/{sweep['id']}")
    expect(page.get_by_role("heading", level=1)).to_have_text("deleted elsewhere")
    assert site.api.http.post(f"/v1/sweeps/{sweep['id']}/cancel", json={}).is_success
    assert site.api.http.delete(f"/v1/sweeps/{sweep['id']}").is_success
    expect(page.get_by_role("alert")).to_contain_text("“deleted elsewhere”")
    expect(page.get_by_role("link", name="All sweeps")).to_have_attribute("href", "/sweeps")


def test_an_unknown_sweep_says_so(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/sweeps/s_0000000000000000")
    expect(page.get_by_role("alert")).to_contain_text("s_0000000000000000")


# -- all of them --


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_are_accessible_and_fit_a_phone(browser: Browser, site: Site, theme: Any) -> None:
    runs = [run.id for run in site.api.client().runs()][:3]
    sweep = sweep_of(site, name=f"seen in {theme}", depths=[2, 4])
    paths = [
        "/cluster",
        "/leaderboard",
        "/sweeps",
        f"/sweeps/{sweep['id']}",
        "/keys",
        "/compare?" + "&".join(f"run={one}" for one in runs),
    ]
    with visiting(browser, site, viewport=PHONE, color_scheme=theme) as page:
        for path in paths:
            page.goto(site.url + path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            page.wait_for_load_state("networkidle")
            serious = [v for v in Axe().run(page).response["violations"] if v["impact"] in ("serious", "critical")]
            assert not serious, (path, [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in serious])
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
