"""How the GPUs and machines of a run were: samples are fenced and bounded, and series keep extremes and tell machines apart."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, func, select

from controlplane import hardware
from controlplane.claims import Fence
from controlplane.errors import FenceLost, NotFound
from controlplane.hardware import MACHINE, Sample
from controlplane.hardware_schemas import HardwareView
from controlplane.models import HardwareSample, Run
from tests.controlplane.ledger import Ledger
from tests.controlplane.test_claims import started_run

BEGAN = 1_700_000_000.0


def gpu(i: int, number: int = 0, *, activity: float = 90.0) -> Sample:
    return Sample(BEGAN + 10 * i, number, activity, 70.0 + i, 600.0, 61.0)


def machine(i: int) -> Sample:
    return Sample(BEGAN + 10 * i, MACHINE, 12.5, 30.0)


def store(ledger: Ledger, fence: Fence, *samples: Sample, worker: str | None = None) -> None:
    with ledger.factory.begin() as s:
        hardware.store(s, fence, samples, worker_id=worker)


def read(ledger: Ledger, run: str, **how: object) -> HardwareView:
    with ledger.factory.begin() as s:
        return hardware.hardware(s, run, **how)  # type: ignore[arg-type]


def count(ledger: Ledger) -> int:
    with ledger.factory.begin() as s:
        return s.scalar(select(func.count()).select_from(HardwareSample)) or 0


def test_devices_of_two_machines_are_told_apart(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    assert read(ledger, run).devices == []
    for i in range(3):
        store(ledger, claim.fence, machine(i), gpu(i), gpu(i, 10, activity=50.0))
        store(ledger, claim.fence, gpu(i, activity=10.0), worker="another")
    devices = read(ledger, run).devices
    own = devices[-1].worker
    assert own != "another"
    assert [(d.worker, d.gpu) for d in devices] == [("another", 0), (own, None), (own, 0), (own, 10)]
    assert [d.activity_pct.mean[0] for d in devices if d.activity_pct] == [10.0, 12.5, 90.0, 50.0]
    host, first = devices[1], devices[2]
    assert (host.power_w, host.temperature_c) == (None, None)
    assert first.t == [BEGAN, BEGAN + 10, BEGAN + 20]
    assert first.memory_gib is not None
    assert first.memory_gib.mean == first.memory_gib.min == first.memory_gib.max == [70.0, 71.0, 72.0]
    assert len(read(ledger, run, stage="data").devices) == 4
    assert read(ledger, run, stage="sft").devices == []
    with pytest.raises(NotFound):
        read(ledger, "r_none")


def test_a_bucket_has_mean_and_extremes_of_neighbouring_samples(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim.fence, *(gpu(i, activity=0.0 if i == 47 else 90.0) for i in range(100)))
    (device,) = read(ledger, run, max_points=10).devices
    assert device.t == [BEGAN + 10 * i for i in range(9, 100, 10)]
    assert device.activity_pct is not None
    assert device.activity_pct.min == [90.0] * 4 + [0.0] + [90.0] * 5
    assert device.activity_pct.max == [90.0] * 10
    assert device.activity_pct.mean[4] == 81.0


def test_a_figure_that_a_gpu_does_not_tell_is_null(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim.fence, Sample(BEGAN, 0, None, None, 12.5), Sample(BEGAN + 10, 0, None, 3.0, 12.5))
    (device,) = read(ledger, run).devices
    assert (device.activity_pct, device.temperature_c) == (None, None)
    assert device.memory_gib is not None
    assert device.memory_gib.mean == [None, 3.0]


def test_samples_that_are_sent_again_are_stored_once_and_an_ended_attempt_stores_none(ledger: Ledger) -> None:
    _, claim = started_run(ledger)
    store(ledger, claim.fence, gpu(0))
    store(ledger, claim.fence, gpu(0), gpu(1))
    assert count(ledger) == 2
    ledger.finish(claim.fence)
    with pytest.raises(FenceLost):
        store(ledger, claim.fence, gpu(2))
    assert count(ledger) == 2


def test_an_attempt_keeps_the_samples_of_three_days(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim.fence, gpu(0), machine(0))
    later = int(hardware.KEPT.total_seconds()) // 10
    store(ledger, claim.fence, gpu(later))
    assert count(ledger) == 3  # the first one is exactly three days old
    store(ledger, claim.fence, gpu(later + 1))
    assert [d.t[0] for d in read(ledger, run).devices] == [BEGAN, BEGAN + 10 * later]


def test_samples_go_with_their_run(ledger: Ledger) -> None:
    run, claim = started_run(ledger)
    store(ledger, claim.fence, gpu(0))
    with ledger.factory.begin() as s:
        s.execute(delete(Run).where(Run.id == run))
    assert count(ledger) == 0
