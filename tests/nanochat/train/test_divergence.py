"""Signs of divergence: each is named once, and only when it lasts."""

from nanochat.contract.events import EventLog, read
from nanochat.train.divergence import FIRST_STEPS, PATIENCE, Divergence
from nanochat.train.state import LoopState


def warnings(tmp_path, figures, state=None):
    """The warnings of a run with these (loss, norm of the gradient)."""
    events = EventLog(tmp_path / "events.jsonl")
    watch, state = Divergence(events, "val_bpb"), state or LoopState()
    for loss, norm in figures:
        state.step += 1
        watch.step(state, loss, norm)
    events.close()
    return [event["message"] for event in read(tmp_path / "events.jsonl")]


def test_a_loss_that_falls_or_jumps_for_a_while_is_no_divergence(tmp_path):
    falling = [(7 - i / 100, 1.0) for i in range(200)]
    jump = [(9.0, 1.0)] * (PATIENCE - 1)
    assert warnings(tmp_path, falling + jump + falling) == []


def test_a_loss_that_stays_above_its_start_is_named_once(tmp_path):
    said = warnings(tmp_path, [(7.0, 1.0), *[(18.6, 1.0)] * 100])
    assert len(said) == 1
    assert f"step {PATIENCE + 1}: the loss is 18.6" in said[0]


def test_an_attempt_that_resumes_remembers_the_start_and_what_was_said(tmp_path):
    state = LoopState()
    assert len(warnings(tmp_path, [(7.0, 1.0), *[(18.6, 1.0)] * 50], state)) == 1
    assert len(warnings(tmp_path, [(18.6, 1.0)] * 50, state)) == 1
    assert state.first_loss == 7.0


def test_a_gradient_that_explodes_is_named_once(tmp_path):
    calm = [(5.0, 2.0)] * FIRST_STEPS
    assert warnings(tmp_path, [*calm, *[(5.0, 1000.0)] * (PATIENCE - 1), (5.0, 1.0)]) == []
    said = warnings(tmp_path, [*calm, *[(5.0, 1000.0)] * 90])
    assert len(said) == 1
    assert "the norm of the gradient is 1000" in said[0]
