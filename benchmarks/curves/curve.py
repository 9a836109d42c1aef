"""One run's validation bits per byte against training time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Curve:
    name: str
    seed: int
    step_s: float  # sustained seconds per step
    steps: list[int]  # after which the model was evaluated
    bpb: list[float]

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.step_s * self.steps[-1]

    @property
    def points(self) -> list[tuple[float, float]]:
        return [(step * self.step_s, bpb) for step, bpb in zip(self.steps, self.bpb, strict=True)]

    def reached(self, goal: float) -> float | None:
        """Seconds until the curve, taken as linear between evaluations, is down at `goal`; None if it never is."""
        for (start, high), (end, low) in pairwise(self.points):
            if low <= goal:
                return start + (end - start) * max(0.0, high - goal) / max(high - low, 1e-9)
        return None
