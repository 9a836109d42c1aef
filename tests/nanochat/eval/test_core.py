"""CORE on a small bundle that is written here, and on the real bundle if it is on this machine."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nanochat.contract.contract import StageError
from nanochat.data.core_bundle import ROWS, bundle_root, read_items, read_tasks
from nanochat.distributed import Ranks
from nanochat.engine.scorer import Scorer
from nanochat.eval import core, core_prompts
from nanochat.model import GPT, GPTConfig, init_weights

pytestmark = pytest.mark.usefixtures("one_core")
ONE_RANK = Ranks(0, 1, torch.device("cpu"))
REAL = Path(__file__).parents[4] / "shared/data/core"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no CORE bundle in {REAL}")


def by_hand(model, tokenizer, task, items, index):
    """Judge one item with the plain model, one prompt at a time."""
    texts = core_prompts.prompts(task, items[index], core_prompts.shots_for(items, index, task.shots))
    losses = []
    for row in core_prompts.rows(task, [tokenizer.encode(t) for t in texts], tokenizer.bos):
        with torch.no_grad():
            logits = model(torch.tensor([row.ids]))[0, row.start - 1 : row.end - 1]
        wanted = torch.tensor(row.ids[row.start : row.end])
        if task.kind == "language_modeling":
            return torch.equal(logits.argmax(-1), wanted)
        losses.append(F.cross_entropy(logits, wanted).item())
    return losses.index(min(losses)) == items[index]["gold"]


@pytest.mark.parametrize("batch_tokens", [1, 64, 4096])
def test_batched_scores_are_those_of_one_prompt_at_a_time(bundle, tokenizer, make_model, batch_tokens):
    model = make_model(tokenizer.vocab_size)
    result = core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None, batch_tokens=batch_tokens)
    assert set(result.tasks) == {"copa", "winograd", "jeopardy"}
    for task in read_tasks(bundle):
        if task.label in result.tasks:
            items = read_items(task)
            right = sum(by_hand(model, tokenizer, task, items, i) for i in range(len(items)))
            assert result.tasks[task.label]["accuracy"] == right / len(items)


def test_a_model_that_knows_the_words_gets_them_right(bundle, tokenizer, make_model):
    """An exact match is possible: a model that was trained on one row completes that row."""
    model = make_model(tokenizer.vocab_size)
    task = next(t for t in read_tasks(bundle) if t.label == "jeopardy")
    items = read_items(task)[:1]
    text = core_prompts.prompts(task, items[0], [])[1]
    ids = torch.tensor([[tokenizer.bos, *tokenizer.encode(text)]])
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    task_file = bundle / "eval_data/j.jsonl"
    task_file.write_text(json.dumps(items[0]) + "\n")
    result = core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None)
    assert result.tasks["jeopardy"]["accuracy"] == 1.0


def test_tasks_go_on_with_less_at_once_when_memory_runs_out(bundle, tokenizer, make_model, monkeypatch):
    model = make_model(tokenizer.vocab_size)
    whole, told = core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None), []
    make = Scorer.__init__

    def short(self, *given, batch_tokens, **more):
        if batch_tokens * more["share"] > 600:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.")
        make(self, *given, batch_tokens=batch_tokens, **more)

    monkeypatch.setattr(Scorer, "__init__", short)
    found = core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None, batch_tokens=4096, warn=told.append)
    assert found == whole
    assert len(told) == 1
    assert "the evaluation goes on with 1/8" in told[0]


def test_ranks_share_the_items(bundle, tokenizer, make_model, monkeypatch):
    model = make_model(tokenizer.vocab_size)
    whole = core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None)
    summed = {}
    for rank in range(3):
        monkeypatch.setattr(Ranks, "sum", lambda self, *values: list(values))
        monkeypatch.setattr(Ranks, "gather", lambda self, *values: [list(values)])
        part = core.evaluate(model, tokenizer, bundle, Ranks(rank, 3, torch.device("cpu")), max_per_task=None)
        for label, result in part.tasks.items():
            summed[label] = summed.get(label, 0) + result["accuracy"]
    assert summed == pytest.approx({label: r["accuracy"] for label, r in whole.tasks.items()})


def test_there_is_no_core_unless_all_tasks_ran(bundle, tokenizer, make_model):
    seen, told = [], []
    result = core.evaluate(
        make_model(tokenizer.vocab_size),
        tokenizer,
        bundle,
        ONE_RANK,
        max_per_task=2,
        progress=lambda *a: seen.append(a),
        on_task=lambda label, r: told.append(label),
    )
    assert result.core is None
    assert result.estimate
    assert result.tasks["copa"]["n"] == 2
    assert set(result.missing) == set(ROWS) - {"copa", "winograd", "jeopardy"}
    assert set(result.partial) == {"copa", "winograd", "jeopardy"}
    assert seen[-1] == (6, 6, "jeopardy")
    assert told == ["copa", "winograd", "jeopardy"]
    for task in result.tasks.values():
        assert -1 <= task["centered"] <= 1


def test_core_is_the_mean_of_all_22(bundle, tokenizer, make_model, monkeypatch):
    small = {"copa": 9, "winograd": 7, "jeopardy": 5}
    monkeypatch.setattr(core, "ROWS", small)
    result = core.evaluate(make_model(tokenizer.vocab_size), tokenizer, bundle, ONE_RANK, max_per_task=None)
    assert not result.estimate
    assert result.core == pytest.approx(sum(t["centered"] for t in result.tasks.values()) / 3)
    copa = result.tasks["copa"]
    assert copa["centered"] == pytest.approx((copa["accuracy"] - 0.5) / 0.5)
    estimated = core.evaluate(make_model(tokenizer.vocab_size), tokenizer, bundle, ONE_RANK, max_per_task=3)
    assert estimated.estimate
    assert estimated.core is not None


def test_a_task_that_cannot_be_run_is_named_and_the_others_run(bundle, tokenizer, make_model):
    (bundle / "eval_data/c.jsonl").write_text('{"query": "a"\n')
    (bundle / "eval_data/w.jsonl").write_text("")
    result = core.evaluate(make_model(tokenizer.vocab_size), tokenizer, bundle, ONE_RANK, max_per_task=None)
    assert set(result.tasks) == {"jeopardy"}
    assert "c.jsonl line 1 is not JSON" in result.failed["copa"]
    assert "no rows" in result.failed["winograd"]
    assert {"copa", "winograd"} <= set(result.missing)


def test_figures_have_standard_errors_and_a_table(bundle, tokenizer, make_model, monkeypatch):
    monkeypatch.setattr(core, "ROWS", {"copa": 9, "winograd": 7, "jeopardy": 5})
    result = core.evaluate(make_model(tokenizer.vocab_size), tokenizer, bundle, ONE_RANK, max_per_task=None)
    errors = []
    for task in result.tasks.values():
        assert task["stderr"] == pytest.approx((task["accuracy"] * (1 - task["accuracy"]) / task["n"]) ** 0.5)
        errors.append(task["stderr"] / (1 - task["baseline"]))
    assert result.stderr == pytest.approx(sum(e**2 for e in errors) ** 0.5 / 3)
    lines = core.table(result).splitlines()
    assert [line.split(",")[0] for line in lines] == ["Task", "copa", "winograd", "jeopardy", "CORE"]
    assert lines[-1].split(",")[2] == f"{result.core:.6f}"


def test_corrected_baselines_are_named_and_center_three_tasks_anew(bundle, tokenizer, make_model):
    config = json.loads((bundle / "core.yaml").read_text())
    config["icl_tasks"][0]["label"] = "commonsense_qa"
    (bundle / "core.yaml").write_text(json.dumps(config))
    with (bundle / "eval_data/c.jsonl").open() as file:
        rows = len(file.readlines())
    with (bundle / "eval_meta_data.csv").open("a") as file:
        file.write("commonsense_qa,20\n")
    model = make_model(tokenizer.vocab_size)
    original, corrected = (
        core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None, corrected_baselines=c) for c in (False, True)
    )
    assert (original.baselines, corrected.baselines) == ("original", "corrected")
    one, other = (r.tasks["commonsense_qa"] for r in (original, corrected))
    assert one["accuracy"] == other["accuracy"]
    assert (one["n"], one["baseline"], other["baseline"]) == (rows, 0.2, 0.403)
    assert other["centered"] == pytest.approx((other["accuracy"] - 0.403) / 0.597)
    assert original.tasks["winograd"] == corrected.tasks["winograd"]


def test_a_whole_item_by_hand(bundle, tokenizer, make_model):
    """One example of each kind of task, computed here from the logits of each position alone."""
    model = make_model(tokenizer.vocab_size)

    def nats(text, continuation):
        """-log p of each token of `continuation` after `text`, token by token."""
        ids, end = [tokenizer.bos, *tokenizer.encode(text)], [*tokenizer.encode(text + continuation)]
        assert [tokenizer.bos, *end][: len(ids)] == ids
        losses = []
        for token in end[len(ids) - 1 :]:
            with torch.no_grad():
                losses.append(-model(torch.tensor([ids]))[0, -1].log_softmax(-1)[token].item())
            ids.append(token)
        return losses

    def write(name, item):
        (bundle / "eval_data" / name).write_text(json.dumps(item) + "\n")

    write("c.jsonl", {"query": "the dog", "choices": ["sleeps on", "runs away"], "gold": 0})
    a, b = nats("the dog", " sleeps on"), nats("the dog", " runs away")
    choice = sum(a) / len(a) <= sum(b) / len(b)
    write("w.jsonl", {"context_options": ["the fox", "a dog"], "continuation": "runs away", "gold": 1})
    a, b = nats("the fox", " runs away"), nats("a dog", " runs away")
    schema = sum(b) / len(b) < sum(a) / len(a)
    write("j.jsonl", {"context": "the quick", "continuation": "brown"})
    with torch.no_grad():
        ids = torch.tensor([[tokenizer.bos, *tokenizer.encode("the quick")]])
        said = model(ids)[0, -1].argmax().item()
    exact = tokenizer.encode("the quick brown")[len(ids[0]) - 1 :] == [said]
    result = core.evaluate(model, tokenizer, bundle, ONE_RANK, max_per_task=None)
    got = {label: task["accuracy"] for label, task in result.tasks.items()}
    assert got == {"copa": float(choice), "winograd": float(schema), "jeopardy": float(exact)}


def test_without_a_bundle_all_tasks_are_missing(tokenizer, make_model):
    result = core.evaluate(make_model(tokenizer.vocab_size), tokenizer, None, ONE_RANK, max_per_task=None)
    assert (result.core, result.tasks, result.missing) == (None, {}, list(ROWS))


def test_a_folder_that_is_no_bundle_is_refused(tmp_path, bundle):
    with pytest.raises(StageError, match="not a CORE bundle"):
        read_tasks(tmp_path / "nowhere")
    (bundle / "eval_data/c.jsonl").write_text('{"query": "a"\n')
    with pytest.raises(StageError, match=r"c\.jsonl line 1"):
        read_items(read_tasks(bundle)[0])


def test_the_artifact_names_the_bundle(tmp_path):
    (tmp_path / "core.json").write_text(json.dumps({"root": "/data/core"}))
    assert bundle_root(tmp_path) == Path("/data/core")
    (tmp_path / "core.json").write_text(json.dumps({"root": None}))
    assert bundle_root(tmp_path) is None


# -- the real bundle --


@real
def test_the_bundles_tasks_are_those_of_core():
    tasks = {t.label: t for t in read_tasks(REAL)}
    assert list(tasks) == list(ROWS)
    assert {label for label, t in tasks.items() if not t.file.is_file()} == {"coqa"}
    assert {t.baseline for t in tasks.values()} == {0.0, 0.091, 0.2, 0.25, 0.5, 0.62}
    assert tasks["commonsense_qa"].baseline == 0.2  # as first published; the authors later corrected it to 0.403
    shots = {label: t.shots for label, t in tasks.items() if t.shots != 10}
    assert shots == {
        **dict.fromkeys(("hellaswag_zeroshot", "copa", "openbook_qa", "lambada_openai", "winograd", "winogrande", "coqa"), 0),
        "agi_eval_lsat_ar": 3,
    }
    assert {label for label, t in tasks.items() if t.delimiter == "\nAnswer: "} == {
        "jeopardy", "arc_easy", "arc_challenge", "piqa", "boolq",
    }  # fmt: skip


@real
@pytest.mark.parametrize("label", [label for label in ROWS if label != "coqa"])
def test_every_whole_task_renders(label, tokenizer):
    task = next(t for t in read_tasks(REAL) if t.label == label)
    items = read_items(task)
    assert len(items) == ROWS[label]
    for index in range(0, len(items), len(items) // 10):
        texts = core_prompts.prompts(task, items[index], core_prompts.shots_for(items, index, task.shots))
        rows = core_prompts.rows(task, tokenizer.encode_batch(texts), tokenizer.bos)
        for row in rows:
            assert 1 <= row.start < row.end <= len(row.ids)
        if task.kind == "language_modeling":  # `rows` has also checked that the prompt is a prefix
            assert tokenizer.decode(rows[0].ids[rows[0].start :]).strip() == items[index]["continuation"].strip()
        else:
            assert 0 <= items[index]["gold"] < len(rows)


@real
def test_a_prompt_of_the_real_bundle_has_the_expected_form(tokenizer):
    task = next(t for t in read_tasks(REAL) if t.label == "bigbench_operators")
    items = read_items(task)
    without, whole = core_prompts.prompts(task, items[0], core_prompts.shots_for(items, 0, task.shots))
    assert whole.count("\n\n") == 10
    assert whole.endswith(f"{items[0]['context'].strip()} {items[0]['continuation']}")
    assert without == whole[: -len(items[0]["continuation"]) - 1]


@real
def test_an_untrained_model_sits_at_chance_on_every_task(tokenizer):
    """With the corrected baselines, which are the chances of guessing; BoolQ's is that of always saying yes."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(128, tokenizer.vocab_size, 1, 1, 1, 32))
    init_weights(model)
    result = core.evaluate(model.eval(), tokenizer, REAL, ONE_RANK, max_per_task=30, corrected_baselines=True)
    assert len(result.tasks) == 21
    for label, task in result.tasks.items():
        chance = {"boolq": 0.5, "commonsense_qa": 0.25}.get(label, task["baseline"])
        error = (max(chance * (1 - chance), 0.01) / task["n"]) ** 0.5
        assert abs(task["accuracy"] - chance) <= 4 * error, (label, task)


@real
def test_the_real_bundle_runs_and_lists_missing_tasks(tokenizer, make_model):
    result = core.evaluate(make_model(tokenizer.vocab_size, seq_len=32), tokenizer, REAL, ONE_RANK, max_per_task=1)
    assert result.core is None
    assert result.missing == ["coqa"]
    assert result.partial == []
    assert result.estimate
    assert len(result.tasks) == 21
