"""The training loop's state. Each checkpoint contains it."""

from __future__ import annotations

from dataclasses import dataclass, field

EMA = 0.9  # decay of the average training loss


@dataclass(slots=True)
class LoopState:
    """`step` is the number of optimizer steps taken. `progress` is the share of the training that is done, 0 to 1."""

    step: int = 0
    progress: float = 0.0
    tokens: int = 0
    train_seconds: float = 0.0
    loss_average: float = 0.0
    visited: int = -1  # the step of the last evaluations; a resumed attempt neither skips nor repeats any
    untrained: float | None = None  # validation figure at step 0
    latest: float | None = None
    lowest: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # the latest figures of the other evaluations
    first_loss: float | None = None  # of the first step, the measure of divergence
    warned: list[str] = field(default_factory=list)  # signs of divergence that a warning has named
    device_batch_size: int = 0  # rows in one pass; an attempt that resumes uses no more

    def loss_seen(self, loss: float) -> None:
        self.loss_average = EMA * self.loss_average + (1 - EMA) * loss

    @property
    def loss(self) -> float:
        """Exponential moving average of the training loss, corrected for its start at 0. Needs at least one step."""
        return self.loss_average / (1 - EMA**self.step)

    def validated(self, value: float) -> None:
        if self.step == 0:
            self.untrained = value
        self.latest = value
        self.lowest = value if self.lowest is None else min(self.lowest, value)
