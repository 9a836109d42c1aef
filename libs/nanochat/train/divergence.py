"""Notices training that diverges. The soft cap on logits keeps a loss finite that has long gone astray.

Everything here works on figures that the loop has on the host anyway. It is of no use where the loss is no cross entropy, as
in reinforcement learning.
"""

from __future__ import annotations

from dataclasses import dataclass

from nanochat.contract.contract import Exit, StageError
from nanochat.contract.events import EventLog
from nanochat.train.state import LoopState

PATIENCE = 20  # steps in a row that count as "stays"
LOSS_FACTOR = 1.1  # of the loss of the first step; batches differ by less
FIRST_STEPS = 10  # steps whose largest norm of the gradient is the measure
NORM_FACTOR = 100.0  # of that norm
WORSE = 1.01  # of the figure before training: a run of one or two steps may end a little above it


@dataclass
class Divergence:
    """Warns once when the loss stays above its start, once when the gradient explodes, and once when validation is above its
    start. `name` is the validation figure's."""

    events: EventLog
    name: str
    _high_losses: int = 0
    _high_norms: int = 0
    _norms: int = 0
    _usual_norm: float = 0.0

    def step(self, state: LoopState, loss: float, norm: float) -> None:
        """Look at a step that was just counted in `state`."""
        if state.first_loss is None:
            state.first_loss = loss
        self._high_losses = self._high_losses + 1 if loss > LOSS_FACTOR * state.first_loss else 0
        if self._high_losses == PATIENCE:
            self._warn(
                state,
                "loss",
                f"the loss is {loss:.4g} and has been above that of the first step, {state.first_loss:.4g}, for {PATIENCE} steps",
            )
        if self._norms < FIRST_STEPS:  # of this attempt
            self._norms += 1
            self._usual_norm = max(self._usual_norm, norm)
            return
        self._high_norms = self._high_norms + 1 if norm > NORM_FACTOR * self._usual_norm else 0
        if self._high_norms == PATIENCE:
            self._warn(
                state,
                "norm",
                f"the norm of the gradient is {norm:.4g}, over {NORM_FACTOR:.0f} times the largest at the start, {self._usual_norm:.4g}",
            )

    def validated(self, state: LoopState) -> None:
        """Look at a new validation figure."""
        if _is_worse(state):
            self._warn(
                state, "validation", f"{self.name} is {state.latest:.4g}, above that before training, {state.untrained:.4g}"
            )

    def refuse(self, state: LoopState, last_saved: int | None) -> None:
        """Raises StageError if a model that began untrained ends worse than it began."""
        if not _is_worse(state):
            return
        raise StageError(
            f"training diverged: {self.name} ends at {state.latest:.4g}, which is worse than the untrained model's "
            f"{state.untrained:.4g}; the last checkpoint is of step {last_saved}, and no model is published",
            code="diverged",
            hint="lower the learning rates, or check the text",
            exit_code=Exit.NONFINITE,
        )

    def _warn(self, state: LoopState, what: str, message: str) -> None:
        if what not in state.warned:
            state.warned.append(what)
            text = f"step {state.step}: {message}; training may diverge: lower the learning rates"
            self.events.emit("warning", code="diverging", message=text)


def _is_worse(state: LoopState) -> bool:
    return state.untrained is not None and state.latest is not None and state.latest > WORSE * state.untrained
