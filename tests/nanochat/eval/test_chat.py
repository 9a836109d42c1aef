"""Chat tasks are judged the same way in batches, over ranks, and one at a time."""

import re
import sys
import threading
import typing
from pathlib import Path

import pytest
import torch

from nanochat.contract.contract import StageError
from nanochat.distributed import Ranks
from nanochat.engine import Engine
from nanochat.engine.scorer import Scorer
from nanochat.eval import answers, chat, samples
from nanochat.tasks.base import Task, multiple_choice, user_and_assistant
from nanochat.tasks.registry import named
from nanochat.tasks.source import TaskSource

pytestmark = pytest.mark.usefixtures("one_core")
ONE_RANK = Ranks(0, 1, torch.device("cpu"))


def evaluate(model, tokenizer, task, ranks=ONE_RANK, *, max_problems=None, batch_size=8, progress=None, **answering):
    how = {"max_problems": max_problems, "batch_size": batch_size, "progress": progress}
    return alone(chat.Evaluator(model, tokenizer, ranks), task, answering=chat.Answering(**answering), **how)


def alone(evaluator, task, **how):
    """The result of one task. Raises why it cannot be evaluated."""
    ((_, found),) = evaluator.evaluate({"task": task}, **how)
    if isinstance(found, StageError):
        raise found
    return found


HUMANEVAL = Path(__file__).parents[4] / "shared/data/humaneval/HumanEval.jsonl"


class Quiz(Task):
    """A multiple-choice task whose questions differ in length and in letters."""

    name, eval_type = "quiz", "categorical"

    def __init__(self, size=11, letters="ABCD"):
        self.size, self.letters = size, letters

    def __len__(self):
        return self.size

    def conversation(self, index):
        letters = list(self.letters[: 2 + index % 3])
        question = multiple_choice("the dog " * (1 + index * 3 % 7), [f"fox {i}" for i, _ in enumerate(letters)], letters)
        return {"messages": user_and_assistant(question, letters[index % len(letters)]), "letters": letters}

    def evaluate(self, conversation, completion):
        return completion == conversation["messages"][-1]["content"]


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_letters_are_judged_in_batches_as_one_at_a_time(make_model, tokenizer, batch_size):
    model, task = make_model(tokenizer.vocab_size), Quiz()
    right = 0
    for index in range(len(task)):
        conversation = task[index]
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer.render_for_completion(conversation)]))[0, -1]
        scores = {letter: logits[tokenizer.encode(letter)[0]].item() for letter in conversation["letters"]}
        right += max(scores, key=scores.get) == conversation["messages"][-1]["content"]
    result = evaluate(model, tokenizer, task, ONE_RANK, batch_size=batch_size)
    assert (result.accuracy, result.n, result.skipped) == (right / 11, 11, 0)


def test_a_letter_must_be_one_token(make_model, tokenizer):
    task = Quiz(1, letters=["A", "B or so"])
    with pytest.raises(StageError, match="B or so"):
        evaluate(make_model(tokenizer.vocab_size), tokenizer, task, ONE_RANK)


def test_generative_answers_are_the_engines(make_model, tokenizer):
    model = make_model(tokenizer.vocab_size, seq_len=128)
    task = named("sums", "test", TaskSource(), size=6)
    progress = []
    result = evaluate(
        model, tokenizer, task, ONE_RANK, max_problems=5, max_new_tokens=12, progress=lambda *a: progress.append(a)
    )
    engine = Engine(model, tokenizer, dtype=torch.float32)
    for index, example in enumerate(result.examples):
        prompt = tokenizer.render_for_completion(task[index])
        (row,), _ = engine.generate_batch(prompt, max_tokens=12, temperature=0)
        assert example["completion"] == tokenizer.decode(row)
        assert example["prompt"] == task[index]["messages"][0]["content"]
        assert example["right"] == task.evaluate(task[index], example["completion"])
    assert len(result.examples) == answers.EXAMPLES
    assert result.n == 5
    assert progress == [(i, 5, "task") for i in range(1, 6)]


def test_any_right_sample_passes(make_model, tokenizer):
    class Lucky(Quiz):
        eval_type = "generative"

        def evaluate(self, conversation, completion):
            return "a" in completion

    model, task = make_model(tokenizer.vocab_size, seq_len=256), Lucky()
    once, often = (
        evaluate(model, tokenizer, task, ONE_RANK, num_samples=n, max_new_tokens=6, temperature=1.0) for n in (1, 12)
    )
    assert once.accuracy < often.accuracy


def test_pass_at_k_counts_the_right_answers(make_model, tokenizer):
    """Four answers to each of three problems, of which 0, 1 and 4 are right: the estimates by hand."""

    class Scripted(Quiz):
        eval_type = "generative"
        verdicts: typing.ClassVar = [[False] * 4, [False, True, False, False], [True] * 4]

        def __init__(self):
            super().__init__(size=3)
            self.asked = {}

        def evaluate(self, conversation, completion):
            seen = self.asked.setdefault(conversation["messages"][0]["content"], {})
            number = seen.setdefault(completion, len(seen))
            return self.verdicts[self.order(conversation)][number]

        def order(self, conversation):
            return [self[i]["messages"] for i in range(3)].index(conversation["messages"])

    result = evaluate(
        make_model(tokenizer.vocab_size, seq_len=256), tokenizer, Scripted(), num_samples=4, max_new_tokens=12, temperature=1.0
    )
    assert result.pass_at == pytest.approx({1: (0 + 1 / 4 + 1) / 3, 2: (0 + 1 / 2 + 1) / 3, 4: 2 / 3})
    assert result.accuracy == pytest.approx(2 / 3)
    assert result.stderr == pytest.approx((2 / 3 * 1 / 3 / 3) ** 0.5)
    table = chat.table({"quiz": result}).splitlines()
    assert table[0] == "Task,Accuracy,Standard error,Problems,Skipped,pass@1,pass@2,pass@4"
    assert table[1] == "quiz,0.666667,0.272166,3,0,0.416667,0.500000,0.666667"


def test_answers_are_judged_together_and_keep_their_order(make_model, tokenizer, monkeypatch):
    """A verdict waits until another one is being reached. The verdict depends on the problem alone."""
    both = threading.Barrier(2)

    class Slow(Quiz):
        eval_type = "generative"

        def evaluate(self, conversation, completion):
            both.wait(timeout=60)
            return int(conversation["letters"][0] == "A" and len(conversation["letters"])) % 2 == 0

    monkeypatch.setattr(chat, "cores", lambda: 2)
    task = Slow(size=10)
    result = evaluate(make_model(tokenizer.vocab_size, seq_len=256), tokenizer, task, max_new_tokens=4)
    right = [len(task[i]["letters"]) % 2 == 0 for i in range(10)]
    assert result.accuracy == sum(right) / 10
    assert [example["right"] for example in result.examples] == right[: answers.EXAMPLES]


MESSAGE = "CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has a total capacity of 8.00 GiB."


def short_of_memory(monkeypatch, *, rows=0, prompts=0):
    """An engine of more than so many rows, and a scorer of more than so many prompts at once, run out of memory when they compute."""
    step, next_logits = Engine.step, Scorer.next_logits

    def few_rows(self):
        if self.scheduler.max_rows > rows:
            raise torch.OutOfMemoryError(MESSAGE)
        return step(self)

    def few_prompts(self, asked, tokens):
        if len(asked) > prompts:
            raise torch.OutOfMemoryError(MESSAGE)
        return next_logits(self, asked, tokens)

    monkeypatch.setattr(Engine, "step", few_rows)
    monkeypatch.setattr(Scorer, "next_logits", few_prompts)


@pytest.mark.parametrize("kind", ["generative", "categorical"])
def test_an_evaluation_that_runs_out_of_memory_goes_on_with_less_at_once(make_model, tokenizer, monkeypatch, kind):
    model = make_model(tokenizer.vocab_size, seq_len=128)
    task = named("sums", "test", TaskSource(), size=9) if kind == "generative" else Quiz()
    plain = evaluate(model, tokenizer, task, max_new_tokens=8)
    short_of_memory(monkeypatch, rows=40, prompts=2)
    told, progress = [], []
    evaluator = chat.Evaluator(model, tokenizer, ONE_RANK, told.append)
    found = [
        alone(evaluator, task, answering=chat.Answering(max_new_tokens=8), progress=lambda *a: progress.append(a)) for _ in "12"
    ]
    assert found == [plain, plain]
    assert told == [
        "out of memory: CUDA out of memory. Tried to allocate 9.00 GiB; the evaluation goes on with 1/4 of what it computes at once"
    ]
    assert progress[-1] == (len(task), len(task), "task")


def test_a_task_that_never_fits_into_memory_fails_alone(make_model, tokenizer, monkeypatch):
    model = make_model(tokenizer.vocab_size, seq_len=128)
    told = []
    evaluator = chat.Evaluator(model, tokenizer, ONE_RANK, told.append)
    with monkeypatch.context() as patch:
        short_of_memory(patch)
        with pytest.raises(StageError, match="OutOfMemoryError: CUDA out of memory"):
            alone(evaluator, Quiz())
    assert alone(evaluator, Quiz()) == evaluate(model, tokenizer, Quiz())
    assert len(told) == 1


@pytest.mark.parametrize("kind", ["generative", "categorical"])
@pytest.mark.parametrize(
    ("judge", "why"),
    [
        ({}.__getitem__, "KeyError: 'gold'"),
        (lambda gold: None, "TypeError: its judge returned None, neither true nor false"),
        (lambda gold: sys.exit(2), r"RuntimeError: its judge called exit\(2\)"),
    ],
    ids=["raises", "returns nothing", "exits"],
)
def test_a_users_judge_that_fails_fails_its_task_alone(make_model, tokenizer, judge, why, kind):
    class Broken(Quiz):
        eval_type = kind

        def evaluate(self, conversation, completion):
            return judge("gold")

    class Good(Quiz):
        eval_type = kind

    evaluator = chat.Evaluator(make_model(tokenizer.vocab_size, seq_len=256), tokenizer, ONE_RANK)
    found = dict(evaluator.evaluate({"broken": Broken(), "good": Good()}, answering=chat.Answering(max_new_tokens=4)))
    assert found["broken"].code == "evaluation_failed"
    assert re.match(why, str(found["broken"]))
    assert found["good"].n == 11


def test_generative_tasks_are_answered_together_as_each_alone(make_model, tokenizer, monkeypatch):
    """Also beside a task that is ranked, one whose judge raises, and one that can make no problem."""

    class Broken(Quiz):
        eval_type = "generative"

        def evaluate(self, conversation, completion):
            raise KeyError("gold")

    class Unmade(Quiz):
        eval_type = "generative"

        def conversation(self, index):
            raise ValueError("no row")

    model = make_model(tokenizer.vocab_size, seq_len=256)
    tasks = {"sums": named("sums", "test", TaskSource(), size=5), "other": named("sums", "test", TaskSource(), size=9)}
    how = chat.Answering(max_new_tokens=20)
    steps = []
    monkeypatch.setattr(Engine, "step", lambda self, step=Engine.step: (steps.append(1), step(self))[1])
    each = {name: alone(chat.Evaluator(model, tokenizer, ONE_RANK), task, answering=how) for name, task in tasks.items()}
    one_by_one, progress = len(steps), []
    steps.clear()
    every = {"broken": Broken(), "sums": tasks["sums"], "quiz": Quiz(), "unmade": Unmade(), "other": tasks["other"]}
    evaluator = chat.Evaluator(model, tokenizer, ONE_RANK)
    found = dict(evaluator.evaluate(every, answering=how, progress=lambda *a: progress.append(a)))
    assert {name: found[name] for name in tasks} == each
    assert found["quiz"] == evaluate(model, tokenizer, Quiz())
    assert str(found["broken"]) == "KeyError: 'gold'"
    assert str(found["unmade"]) == "ValueError: no row"
    assert len(steps) < one_by_one
    assert progress[0] == (8, 11, "quiz")
    assert progress[-1][2] == "broken, sums, unmade, other"


def test_ranks_share_the_problems(make_model, tokenizer):
    model, task = make_model(tokenizer.vocab_size), Quiz()
    whole = evaluate(model, tokenizer, task, ONE_RANK)

    class Part(Ranks):
        def sum(self, *values):
            return list(values)

        def gather(self, *values):
            return [list(values)]

    parts = [evaluate(model, tokenizer, task, Part(r, 3, torch.device("cpu"))) for r in range(3)]
    assert sum(p.accuracy for p in parts) == pytest.approx(whole.accuracy)


def test_a_problem_that_does_not_fit_is_skipped_and_counts_as_wrong(make_model, tokenizer):
    model = make_model(tokenizer.vocab_size, seq_len=8)
    result = evaluate(model, tokenizer, named("sums", "test", TaskSource(), size=3), ONE_RANK)
    assert (result.accuracy, result.n, result.skipped) == (0.0, 3, 3)


def test_chatcore_needs_all_six():
    # A public run of November 2025, whose report says 0.2703.
    accuracies = {
        "arc_easy": 0.448,
        "arc_challenge": 0.331,
        "mmlu": 0.332,
        "gsm8k": 0.050,
        "humaneval": 0.092,
        "spellingbee": 1.0,
    }
    assert chat.chatcore(accuracies) == pytest.approx(0.2703, abs=5e-4)
    assert chat.chatcore({**accuracies, "sums": 0.3}) == chat.chatcore(accuracies)
    accuracies.pop("mmlu")
    assert chat.chatcore(accuracies) is None


def test_chatcore_without_spellingbee_is_that_of_nanochats_readme():
    finetuned = {"arc_easy": 0.3876, "arc_challenge": 0.2807, "mmlu": 0.3151, "gsm8k": 0.0455, "humaneval": 0.0854}
    assert chat.chatcore(finetuned, chat.FIVE) == pytest.approx(0.0884, abs=5e-5)
    assert chat.chatcore({**finetuned, "counting": 1.0}) is None  # our own counting task does not take SpellingBee's place


def test_chatcore_of_guessing_is_zero():
    assert chat.chatcore(chat.BASELINES) == 0.0


def test_samples_are_the_seven_prompts_with_text(make_model, tokenizer):
    made = samples.complete(make_model(tokenizer.vocab_size), tokenizer)
    assert [prompt for prompt, _ in made] == list(samples.PROMPTS)
    assert len(made) == 7
    assert all(text for _, text in made)
    assert made == samples.complete(make_model(tokenizer.vocab_size), tokenizer)


@pytest.mark.skipif(not HUMANEVAL.is_file(), reason=f"no {HUMANEVAL}")
def test_reference_solutions_of_humaneval_pass_in_the_sandbox():
    task = named("humaneval", "test", TaskSource({"humaneval/test": (HUMANEVAL,)}))
    for index in range(0, len(task), 20):
        conversation = task[index]
        assert task.evaluate(conversation, conversation["messages"][-1]["content"]), index
        assert not task.evaluate(conversation, "def nothing(): pass")
