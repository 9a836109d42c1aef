"""`nanochat sweep` as users see it, against a real API."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from client import svg
from client.cli import app
from client.errors import ApiError
from tests.api.manual_worker import ManualWorker
from tests.api.server import Api
from tests.api.test_sweeps import train
from tests.waiting import until

SVG = "{http://www.w3.org/2000/svg}"


pytestmark = pytest.mark.usefixtures("environment")


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["sweep", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_sweep_by_command_line(worker: ManualWorker, tmp_path: Path) -> None:
    options = ("--grid", "model.depth=2,4", "--grid", "base.packing=stream,bos_aligned", "--max-parallel", "3", "--label", "x")
    sweep = said("submit", "tiny", *options, "--name", "mine", "--stop-early", "val_bpb@0.5").strip()
    found = json.loads(said("show", sweep, "--json"))
    assert [run["overrides"]["base.packing"] for run in found["items"]] == ["stream", "bos_aligned"] * 2
    assert [run["held"] for run in found["items"]] == [False, False, False, True]
    train(worker, found["items"][0]["run_id"], [3.25, 2.5])
    train(worker, found["items"][2]["run_id"], [3.0])
    row = next(line for line in said("show", "mine").splitlines() if found["items"][0]["run_id"] in line)
    assert 'depth=2, packing="stream"' in row
    assert "2.5" in row.split()
    assert (
        said("show", sweep, "--csv")
        .splitlines()[0]
        .startswith("no,run_id,name,status,stopped_early,model.depth,base.packing,best")
    )
    said("plot", "mine", "--out", str(tmp_path / "mine.svg"))
    picture = ElementTree.parse(tmp_path / "mine.svg").getroot()
    assert len(picture.findall(f"{SVG}g")) == 2
    texts = [text.text or "" for text in picture.iter(f"{SVG}text")]
    assert {"mine: validation bits per byte", "GPU hours of the stage", "tokens"} <= set(texts)
    assert len([text for text in texts if text.startswith("1 depth=2")]) == 2
    assert len(list(picture.iter(f"{SVG}polyline"))) == len(list(picture.iter(f"{SVG}circle"))) == 2
    said("plot", "mine", "--out", str(tmp_path / "mine.csv"))
    assert len((tmp_path / "mine.csv").read_text().splitlines()) == 4
    assert "mine" in said("list")
    assert said("pause", "mine").startswith(sweep)
    assert said("resume", "mine") == f"{sweep} RUNNING\n"
    assert said("edit", "mine", "--max-parallel", "4", "--name", "ours").startswith(sweep)
    said("cancel", "ours", "--now")


def test_the_ablation_of_modern_is_one_command() -> None:
    sweep = said("ablate", "modern").strip()
    found = json.loads(said("show", sweep, "--json"))
    assert (found["kind"], found["items"][0]["overrides"]) == ("ablate", {})
    assert {"model.value_embeds": False} in [run["overrides"] for run in found["items"]]
    assert len(found["items"]) > 30
    assert said("cancel", sweep).startswith(sweep)  # what takes long is done after the answer
    until(lambda: json.loads(said("show", sweep, "--json"))["status"] == "FINISHED", "all runs to be cancelled", 120, every=1)


def test_a_plan_starts_nothing_and_says_what_a_sweep_costs(api: Api) -> None:
    before = len(json.loads(said("list", "--json"))["items"])
    text = said("plan", "modern", "--depths", "4,8", "--gpu", "H100", "--gpus", "2")
    assert "2 runs on 2 x H100" in text
    assert "$" in text
    assert "GPU hours" in text
    assert "smear=false" in said("ablate", "modern", "model.smear", "--dry-run")
    ranges = ("--random", "base.optim.matrix_lr=0.01:0.1:log", "--random", "seed=1:99:int", "--random", "model.depth=2,4")
    plan = json.loads(said("plan", "tiny", *ranges, "--samples", "5", "--seed", "3", "--json"))
    assert len(plan["items"]) == 5
    assert all(isinstance(run["overrides"]["seed"], int) for run in plan["items"])
    assert len(json.loads(said("list", "--json"))["items"]) == before


def test_a_whole_sweep_is_a_file_that_options_change(api: Api, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text('name = "small"\nmodel.depth = 2\nmodel.seq_len = 256\n')
    file = tmp_path / "sweep.toml"
    file.write_text(
        'recipe = "small.toml"\nname = "from a file"\noverrides = { "base.num_iterations" = 5 }\n'
        '[grid]\nseed = [1, 2]\n[stop_early]\nmetric = "loss"\nafter = 2.0\nunit = "steps"\n'
    )
    sweep = said("submit", str(file), "--set", "base.num_iterations=7", "--priority", "3").strip()
    with api.client() as client:
        found = client.sweeps.get(sweep)
        config = client.run(found.items[1].run_id).config
        assert (config["name"], config["model"]["depth"], config["base"]["num_iterations"], config["seed"]) == (
            "small",
            2,
            7,
            2,
        )
        client.sweeps.cancel(sweep)
        until(lambda: client.sweeps.get(sweep).pending == 0, "both runs to be cancelled")
        with pytest.raises(ApiError, match="have ended"):
            client.sweeps.pause(sweep)
    said("edit", sweep, "--archive")
    assert sweep in said("list", "--archived")
    assert said("delete", sweep) == f"{sweep} deleted\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("submit", "tiny", "--grid", "model.depth"), "field=values"),
        (("submit", "tiny", "--grid", "seed=1", "--grid", "seed=2"), "named twice"),
        (("submit", "tiny", "--random", "seed=1:9"), "--samples"),
        (("submit", "tiny", "--samples", "3", "--depths", "2"), "--random"),
        (("submit", "tiny", "--random", "seed=1:nine", "--samples", "3"), "MIN:MAX"),
        (("submit", "tiny", "--random", "seed=1:9:cube", "--samples", "3"), "neither log nor int"),
        (("submit", "tiny", "--depths", "2", "--stop-early", "val_bpb"), "val_bpb@0.25"),
        (("submit", "tiny", "--depths", "2", "--keep", "0.5"), "--stop-early"),
        (("plot", "s_0", "--out", "x.png"), ".svg"),
        (("submit", "none.toml", "--depths", "2"), "No such file"),
    ],
)
def test_mistakes_are_told_in_words(arguments: tuple[str, ...], word: str) -> None:
    result = CliRunner().invoke(app, ["sweep", *arguments])
    assert result.exit_code == 2
    assert word in result.output


def test_a_picture_of_anything_is_well_formed() -> None:
    lines = [svg.Line(f"<run & {n}>", [(x, float(x % (n + 1))) for x in range(n)]) for n in range(20)]
    flat = [svg.Line("flat", [(0.0, 1.0), (0.0, 1.0)])]
    panels = [
        svg.Panel("a < b", "x", lines),
        svg.Panel("none", "", []),
        svg.Panel("", "", flat),
        svg.Panel("", "", [svg.Line("far", [(1e-9, 1e30), (1e15, -1e30)])]),
    ]
    picture = ElementTree.fromstring(svg.page(panels))
    assert len(picture.findall(f"{SVG}g")) == 4
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert "and 6 more" in texts
    assert "<run & 3>" in texts
