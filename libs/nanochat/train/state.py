"""What the loop remembers from step to step; it travels in each checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

EMA = 0.9


@dataclass(slots=True)
class LoopState:
    """`step` counts optimizer steps taken. `progress` is the share of the training done, 0 to 1."""

    step: int = 0
    progress: float = 0.0
    tokens: int = 0
    train_seconds: float = 0.0
    loss_average: float = 0.0
    visited: int = -1  # the step at which evaluations last ran, so that a stop between neither skips nor repeats one
    untrained: float | None = None  # validation figures: at step 0, the latest, the lowest
    latest: float | None = None
    lowest: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # the latest figures of the other evaluations
    device_batch_size: int = 0  # rows at a time; an attempt that resumes takes no more

    def loss_seen(self, loss: float) -> None:
        self.loss_average = EMA * self.loss_average + (1 - EMA) * loss

    @property
    def loss(self) -> float:
        """Exponential moving average of the training loss, without the bias of its start at 0. After at least one step."""
        return self.loss_average / (1 - EMA**self.step)

    def validated(self, value: float) -> None:
        if self.step == 0:
            self.untrained = value
        self.latest = value
        self.lowest = value if self.lowest is None else min(self.lowest, value)
