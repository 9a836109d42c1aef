"""The policy gradient: its masks, its direction, and that a model learns from it."""

import pytest
import torch

from nanochat.config.recipe import OptimSpec, RlSpec
from nanochat.data.packing import pad_rows
from nanochat.distributed import Ranks
from nanochat.engine import Engine
from nanochat.optim import Optimizer
from nanochat.rl import rollout
from nanochat.rl.rewards import Judge
from nanochat.tasks.base import Task, user_and_assistant

pytestmark = pytest.mark.usefixtures("one_core")
ONE_RANK = Ranks(0, 1, torch.device("cpu"))


class Says(Task):
    """A task whose answers are right when they contain the wanted text."""

    name = "says"

    def __init__(self, wanted, size=6):
        self.wanted, self.size = wanted, size

    def __len__(self):
        return self.size

    def conversation(self, index):
        return {"messages": user_and_assistant(f"Question {index}?", self.wanted)}

    def evaluate(self, conversation, completion):
        return self.wanted in completion


@pytest.fixture
def spec():
    return RlSpec(device_batch_size=4, examples_per_step=3, num_samples=8, max_new_tokens=6, top_k=0, eval_examples=4)


def judge_of(task):
    return Judge("correct", lambda conversation, completion: float(task.evaluate(conversation, completion)))


def engine_of(model, tokenizer):
    return Engine(model, tokenizer, dtype=torch.float32)


def test_seeds_are_reproducible_and_differ():
    assert rollout.seed_of(42, "rl", 7) == 8054580637978881526
    assert len({rollout.seed_of(a, b) for a in range(20) for b in range(20)}) == 400


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_steps_questions_do_not_depend_on_the_ranks(world, spec):
    spec = spec.model_copy(update={"examples_per_step": 4})
    ranks = [Ranks(r, world, torch.device("cpu")) for r in range(world)]
    for step in range(5):
        asked = sorted(q for r in ranks for q in rollout.questions(step, spec, 6, r))
        assert asked == sorted((4 * step + i) % 6 for i in range(4))


def test_a_rollout_is_reproducible_and_masks_the_prompt(make_model, tokenizer, spec):
    engine = engine_of(make_model(tokenizer.vocab_size), tokenizer)
    task = Says("a")
    [group] = rollout.rollouts(engine, tokenizer, task, [2], spec, judge_of(task), 42, 0)
    _, again, _ = rollout.rollouts(engine, tokenizer, task, [1, 2, 3], spec, judge_of(task), 42, 0)
    prompt = tokenizer.render_for_completion(task[2])
    assert group == again
    assert len(group.ids) == 8
    assert len(set(map(tuple, group.ids))) > 1  # the samples differ
    for ids, mask, reward in zip(group.ids, group.masks, group.rewards, strict=True):
        assert len(ids) == len(mask)
        assert ids[: len(prompt)] == prompt
        assert mask[: len(prompt)] == [0] * len(prompt)
        assert reward == float("a" in tokenizer.decode(ids[len(prompt) :]))
    assert sum(group.advantages) == pytest.approx(0, abs=1e-9)


def test_a_question_beyond_the_context_is_left_out(make_model, tokenizer, spec):
    engine = engine_of(make_model(tokenizer.vocab_size, seq_len=4), tokenizer)
    assert rollout.rollouts(engine, tokenizer, Says("a"), [0], spec, judge_of(Says("a")), 1) == [None]


@pytest.mark.parametrize("positions", [4, 1000], ids=["few answers at a time", "all at once"])
def test_the_gradient_is_that_of_the_definition(make_model, tokenizer, spec, positions):
    model = make_model(tokenizer.vocab_size).double()
    groups = [
        rollout.Group(
            ids=[[1, 2, 3, 4, 5], [1, 2, 6], [1, 2, 7, 8], [1, 2, 9]],
            masks=[[0, 0, 1, 0, 1], [0, 0, 1], [0, 0, 1, 1], [0, 0, 1]],
            rewards=[1.0, 0.0, 0.0, 1.0],
        ),
        rollout.Group(
            ids=[[4, 2], [4, 8, 5, 6, 7, 2, 3], [4, 2, 2], [4, 9]],
            masks=[[0, 1], [0, 1, 1, 1, 1, 1, 1], [0, 1, 1], [0, 1]],
            rewards=[0.5, 0.5, 0.0, 1.0],
        ),
    ]
    spec = spec.model_copy(update={"device_batch_size": 2})
    got_loss = rollout.backward(model, groups, spec, 0.25, 0, ONE_RANK, positions=positions)
    got = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    objective = 0.0
    for group in groups:
        mean = sum(group.rewards) / 4
        for rows in ((0, 1), (2, 3)):
            chosen, count = 0.0, 0
            for row in rows:
                logp = model(torch.tensor([group.ids[row]])).log_softmax(-1)[0]
                for place, token in enumerate(group.ids[row]):
                    if group.masks[row][place]:
                        chosen = chosen + logp[place - 1, token] * (group.rewards[row] - mean)
                        count += 1
            objective = objective + chosen / count / 2
    loss = -0.25 * objective
    loss.backward()
    assert got_loss == pytest.approx(loss.item(), rel=1e-4)
    for mine, parameter in zip(got, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-7)


def test_positions_at_a_time_are_bounded_with_their_padding(make_model, tokenizer, spec):
    class Padded(Ranks):
        row_multiple = 16

    model, shapes = make_model(tokenizer.vocab_size, seq_len=32), []
    model.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    group = rollout.Group([[*range(18)]] * 4, [[0] + [1] * 17] * 4, [1.0, 0.0, 0.0, 1.0])
    rollout.backward(model, [group], spec, 1.0, 0, Padded(0, 1, ONE_RANK.device), positions=64)
    assert shapes == [(2, 32), (2, 32)]


def test_equal_rewards_give_no_gradient(make_model, tokenizer, spec):
    model = make_model(tokenizer.vocab_size)
    group = rollout.Group([[1, 2, 3]] * 4, [[0, 1, 1]] * 4, [1.0] * 4)
    assert rollout.backward(model, [group], spec, 1.0, 0, ONE_RANK, positions=100) == 0.0
    assert all(p.grad is None for p in model.parameters())


def test_one_step_makes_the_right_answer_more_likely(make_model, tokenizer, spec):
    model = make_model(tokenizer.vocab_size)
    group = rollout.Group([[1, 2, 3, 4], [1, 2, 5, 6]], [[0, 0, 1, 1]] * 2, [1.0, 0.0])

    def log_probs():
        inputs, targets = pad_rows(list(zip(group.ids, group.masks, strict=True)), 0)
        with torch.no_grad():
            return -model(inputs, targets, reduction="none").sum(1)

    before = log_probs()
    rollout.backward(model, [group], spec, 1.0, 0, ONE_RANK, positions=100)
    with torch.no_grad():
        for p in model.parameters():
            p -= 1e-3 * p.grad
    right, wrong = (log_probs() - before).tolist()
    assert right > 0 > wrong


def test_it_learns_a_trivial_task(make_model, tokenizer, spec):
    torch.manual_seed(0)
    model = make_model(tokenizer.vocab_size, seed=3)
    task = Says("a")
    engine = engine_of(model, tokenizer)
    optimizer = Optimizer(model, OptimSpec(grad_clip=0), ONE_RANK, lr_scale=0.5)
    rewards = []
    for step in range(12):
        optimizer.zero_grad()
        asked = rollout.questions(step, spec, len(task), ONE_RANK)
        groups = rollout.rollouts(engine, tokenizer, task, asked, spec, judge_of(task), 1, step)
        rollout.backward(model, groups, spec, 1 / len(asked), tokenizer.special("<|assistant_end|>"), ONE_RANK, positions=100)
        optimizer.step(1.0, rollout.MOMENTUM)
        engine.refresh()
        rewards.append(sum(sum(g.rewards) for g in groups) / sum(len(g.rewards) for g in groups))
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.3
    assert rollout.pass_at(engine, tokenizer, task, spec, ONE_RANK, 1)[0] > 0.6


def test_pass_at_k_grows_with_k_and_is_exact(make_model, tokenizer, spec, monkeypatch):
    made = [rollout.Group([], [], [1.0] * right + [0.0] * (8 - right)) for right in (0, 2, 8, 1)]
    monkeypatch.setattr(rollout, "rollouts", lambda *args: made)
    found = rollout.pass_at(None, tokenizer, Says("a"), spec, ONE_RANK, 1)
    assert found[0] == pytest.approx((0 + 2 / 8 + 1 + 1 / 8) / 4)
    assert found[7] == 3 / 4
    assert found[1] == pytest.approx((0 + (1 - (6 * 5) / (8 * 7)) + 1 + 2 / 8) / 4)
    assert found == sorted(found)
