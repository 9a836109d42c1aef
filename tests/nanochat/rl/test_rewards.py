"""Reward functions: those by name, one of the user's own from an installed package, and one that fails."""

import sys
import textwrap
import time

import pytest

from nanochat.__main__ import run as run_stage
from nanochat.config.recipe import resolve
from nanochat.contract.contract import EVENTS, Artifact, Exit, StageError
from nanochat.contract.events import read
from nanochat.planning import preflight
from nanochat.rl import rewards
from nanochat.tasks.base import user_and_assistant

pytestmark = pytest.mark.usefixtures("one_core")
QUESTION = {"messages": user_and_assistant("Say a.", "a")}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """`package(code)` installs a package whose functions `brief` and `picky` are reward functions."""

    def install(code: str) -> None:
        site = tmp_path / "site"
        info = site / "my_rewards-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "my_rewards.py").write_text(textwrap.dedent(code))
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-rewards\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[nanochat.rewards]\nbrief = my_rewards:brief\npicky = my_rewards:picky\n")
        monkeypatch.syspath_prepend(site)

    yield install
    sys.modules.pop("my_rewards", None)


def of_kind(out, kind):
    return [e for e in read(out / EVENTS) if e["kind"] == kind]


def metrics(out, key):
    return {e["step"]: e["values"][key] for e in of_kind(out, "metric") if key in e["values"]}


def test_a_recipe_with_an_unknown_reward_is_refused_before_any_work():
    recipe = resolve("tiny", {"rl.enabled": True, "rl.reward": "no_such"})
    [(field, problem)] = preflight.check(recipe)
    assert field == "rl.reward"
    assert "correct, correct_or_formatted" in problem
    assert "nanochat.rewards" in problem
    assert preflight.check(resolve("tiny", {"rl.reward": "no_such"})) == []  # it has no such stage


def test_a_function_of_an_installed_package_rewards_the_answers(package, small_run, tmp_path):
    package("def brief(conversation, completion):\n    return 1 / (1 + len(completion))\npicky = brief\n")
    assert preflight.check(resolve("tiny", {"rl.enabled": True, "rl.reward": "brief"})) == []
    small_run.stage("sft")
    out = tmp_path / "rl"
    assert run_stage(small_run.spec("rl", out, config={"rl": {"reward": "brief"}})) == 0, of_kind(out, "error")
    assert all(0 < reward < 1 for reward in metrics(out, "reward").values())
    assert set(metrics(out, "unjudged").values()) == {0.0}
    samples = of_kind(out, "sample")
    assert samples
    assert all(sample["reward"] == pytest.approx(1 / (1 + len(sample["text"]))) for sample in samples)


def test_a_package_that_cannot_be_imported_is_named(package):
    package("import no_such_module")
    with pytest.raises(StageError, match=r"brief \(my_rewards:brief\) cannot be imported: ModuleNotFoundError.*no_such_module"):
        rewards.load("brief", None)


def test_what_fails_is_counted_and_training_goes_on_without_it(package, small_run, tmp_path):
    package(
        """
        calls = 0

        def picky(conversation, completion):
            global calls
            calls += 1
            if calls % 3 == 0:
                raise KeyError("score")
            return float("nan") if calls % 3 == 1 else 1.0
        """
    )
    small_run.stage("sft")
    out = tmp_path / "rl"
    assert run_stage(small_run.spec("rl", out, config={"rl": {"reward": "picky"}})) == 0, of_kind(out, "error")
    assert set(metrics(out, "reward").values()) == {1.0}
    unjudged = metrics(out, "unjudged")
    assert all(5 <= failed <= 6 for failed in unjudged.values())  # of 2 x 4 answers
    [warning, *_] = of_kind(out, "warning")
    assert warning["code"] == "reward_failed"
    assert "the reward function picky failed for 5 of 8 answers at step 0" in warning["message"]


def test_when_every_answer_fails_the_stage_ends_and_keeps_what_it_has_learnt(package, small_run, tmp_path):
    package(
        """
        calls = 0

        def picky(conversation, completion):
            global calls
            calls += 1
            if calls > 16:
                raise RuntimeError("no route to the grader")
            return float(len(completion) % 2)
        """
    )
    small_run.stage("sft")
    broken, mended = tmp_path / "broken", tmp_path / "mended"
    changes = {"reward": "picky", "save_every": -1, "eval_every": -1}
    assert run_stage(small_run.spec("rl", broken, config={"rl": changes})) == Exit.FAILED
    error = of_kind(broken, "error")[-1]
    assert error["code"] == "reward_failed"
    assert "picky failed for 8 of 8 answers at step 2: RuntimeError: no route to the grader" in error["message"]
    saved = of_kind(broken, "checkpoint")[-1]
    assert (saved["step"], saved["final"]) == (2, False)
    again = {"reward": "correct", "eval_every": -1}
    resume = Artifact(path=saved["path"], sha256=saved["sha256"])
    assert run_stage(small_run.spec("rl", mended, resume_from=resume, config={"rl": again})) == 0
    assert list(metrics(mended, "reward")) == [3, 4]


def test_a_function_that_exits_does_not_end_the_training():
    judge = rewards.Judge("leaves", lambda conversation, completion: sys.exit(3))
    assert judge(QUESTION, "a") is None
    assert judge.why == "SystemExit: 3"


@pytest.mark.parametrize("reward", [float("nan"), float("-inf"), 1e300, -1e7])
def test_a_reward_that_no_gradient_can_hold_counts_as_failed(reward):
    judge = rewards.Judge("large", lambda conversation, completion: reward if completion == "a" else -2.5)
    assert judge(QUESTION, "a") is None
    assert judge(QUESTION, "b") == -2.5
    assert (judge.judged, judge.failed) == (2, 1)
    assert "not a number from -1e+06 to 1e+06" in judge.why


def test_a_function_that_never_returns_is_stopped(monkeypatch):
    monkeypatch.setattr(rewards, "PATIENCE_S", 0.2)
    judge = rewards.Judge("sleepy", lambda conversation, completion: time.sleep(60))
    start = time.monotonic()
    assert judge(QUESTION, "a") is None
    assert time.monotonic() - start < 30
    assert (judge.judged, judge.failed) == (1, 1)
    assert "longer than 0.2 s" in judge.why
