"""Reward functions: how good an answer is, as a number. Imports no torch.

A recipe names one in `rl.reward`: one of the table below, or one of the user's own, which a Python package offers as an entry point
of the group `nanochat.rewards`:

    [project.entry-points."nanochat.rewards"]
    brief = "my_package:brief"

    def brief(conversation, completion): ...   # a number; higher is better
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from types import FrameType

from nanochat.contract.contract import StageError
from nanochat.tasks.base import Conversation, Task

Reward = Callable[[Conversation, str], float]

GROUP = "nanochat.rewards"
PATIENCE_S = 60  # for the judging of one answer
LARGEST = 1e6  # of a reward; gradients of far larger ones are no numbers in fp32


def _correct(task: Task) -> Reward:
    return lambda conversation, completion: float(task.evaluate(conversation, completion))


def _formatted(task: Task) -> Reward:
    """A small reward for an answer in the right form, so that a model which is never right has something to learn from."""
    return lambda conversation, completion: 1.0 if task.evaluate(conversation, completion) else 0.1 * ("#### " in completion)


# name -> makes the function for a task
REWARDS: dict[str, Callable[[Task], Reward]] = {"correct": _correct, "correct_or_formatted": _formatted}


def known() -> list[str]:
    """The names that a recipe may give on this machine."""
    return [*REWARDS, *sorted(point.name for point in entry_points(group=GROUP))]


def unknown(name: str) -> str:
    """What to tell a person who named a reward function that this machine lacks; empty if it has it."""
    if name in known():
        return ""
    return (
        f"no reward function {name!r}; known: {', '.join(known())}; "
        f"one of your own needs a package with an entry point of the group {GROUP}, installed where the stage runs"
    )


def load(name: str, task: Task) -> Reward:
    """The reward function of this name. Raises StageError when there is none, or when its package cannot be imported."""
    if name in REWARDS:
        return REWARDS[name](task)
    if problem := unknown(name):
        raise StageError(problem, code="bad_reward", hint="correct rl.reward, or install the package")
    point = next(point for point in entry_points(group=GROUP) if point.name == name)
    try:
        found = point.load()
    except Exception as err:
        raise StageError(
            f"the reward function {name} ({point.value}) cannot be imported: {type(err).__name__}: {err}",
            code="bad_reward",
            hint="mend the package that offers it",
        ) from err
    if not callable(found):
        raise StageError(
            f"the reward function {name} ({point.value}) is no function but {type(found).__name__}",
            code="bad_reward",
            hint="mend the package that offers it",
        )
    return found  # type: ignore[no-any-return]


class Judge:
    """Calls a reward function. What it raises, and what is no number of a usable size, is counted; it never ends the training at once.

    `judged` and `failed` count the answers, `seconds` is the time that they took, and `why` is the latest failure.
    """

    def __init__(self, name: str, reward: Reward):
        self.name, self._reward = name, reward
        self.judged = self.failed = 0
        self.seconds = 0.0
        self.why = ""

    def __call__(self, conversation: Conversation, completion: str) -> float | None:
        """The reward, or None if the function failed or took longer than `PATIENCE_S`."""
        self.judged += 1
        start = time.perf_counter()
        try:
            with _time_limit(PATIENCE_S):
                reward = float(self._reward(conversation, completion))
            if abs(reward) <= LARGEST:  # not so for NaN
                return reward
            self.why = f"it returned {reward}, not a number from -{LARGEST:g} to {LARGEST:g}"
        except (Exception, SystemExit) as err:
            self.why = f"{type(err).__name__}: {err}"
        finally:
            self.seconds += time.perf_counter() - start
        self.failed += 1
        return None


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the body after `seconds`. Has no effect outside the main thread, where no signal arrives."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
