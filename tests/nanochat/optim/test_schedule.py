import pytest

from nanochat.optim import schedule


def test_base_schedule_of_the_speedrun():
    def lrm(step):
        return schedule.trapezoid(step, 21_400, warmup_ratio=0.0, warmdown_ratio=0.2, final_lr_frac=0.0)

    assert lrm(0) == lrm(21_400 - 4280) == 1.0
    assert lrm(21_400 - 4279) == pytest.approx(4279 / 4280)
    assert lrm(21_400 - 2140) == pytest.approx(0.5)
    assert lrm(21_399) == pytest.approx(1 / 4280)
    assert lrm(21_400) == 0.0


def test_base_schedule_with_warmup_and_a_floor():
    values = [schedule.trapezoid(s, 10, warmup_ratio=0.2, warmdown_ratio=0.5, final_lr_frac=0.1) for s in range(11)]
    assert values == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.82, 0.64, 0.46, 0.28, 0.1])


def test_midtraining_falls_over_the_last_fifth_of_the_pass():
    assert [schedule.warmdown(p, 0.2) for p in (0, 0.8, 0.9, 1.0, 1.01)] == pytest.approx([1, 1, 0.5, 0, 0])
    assert schedule.warmdown(1.0, 0.0) == 1.0


def test_finetuning_falls_from_the_start():
    assert [schedule.linear(s, 4) for s in range(4)] == [1, 0.75, 0.5, 0.25]


def test_warmup_steps_override_the_ratio_and_end_where_the_warmdown_begins():
    def lrm(step, warmup):
        return schedule.trapezoid(step, 100, warmup_ratio=0.5, warmdown_ratio=0.65, final_lr_frac=0.05, warmup_steps=warmup)

    assert [lrm(s, 10) for s in (0, 9, 10, 35, 100)] == pytest.approx([0.1, 1, 1, 1, 0.05])
    assert [lrm(s, 40) for s in (0, 34, 36)] == pytest.approx([1 / 35, 1, 1 - 0.95 / 65])


def test_momentum_rises_to_its_peak_and_falls_with_the_learning_rate():
    def momentum(step):
        return schedule.momentum_falling(
            schedule.muon_momentum(step, peak=0.97, ramp_steps=400), 0.90, step, 1000, warmdown_ratio=0.5
        )

    assert [momentum(s) for s in (0, 200, 400, 500, 750, 1000)] == pytest.approx([0.85, 0.91, 0.97, 0.97, 0.935, 0.90])
    assert schedule.momentum_falling(0.9, 0.5, 10, 10, warmdown_ratio=0.0) == 0.9


def test_weight_decay_schedules():
    assert [schedule.weight_decay(s, 10, "constant") for s in (0, 5, 10)] == [1, 1, 1]
    assert [schedule.weight_decay(s, 10, "linear") for s in (0, 5, 10)] == pytest.approx([1, 0.5, 0])
    assert [schedule.weight_decay(s, 12, "cosine") for s in (0, 4, 6, 12)] == pytest.approx([1, 0.75, 0.5, 0])


def test_momentum_ramp():
    assert [schedule.muon_momentum(s) for s in (0, 150, 300, 5000)] == pytest.approx([0.85, 0.9, 0.95, 0.95])
