"""Is this another task? Decided from prediction errors alone: no label is given, and no boundary.

While it is trained and acts, the agent predicts every step with the model of every task that it
knows. How large an error to expect of a model that is right, its level, it knows from the time in
which it learned it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from hypercrl.settings import number

WHILE_IMPROVING, WHILE_WORSENING = 3, 10
"""A level follows so many times more slowly than what is compared with it: a model gets better
while it is trained, and a change of the task shall not become the level."""

SMALLEST = 1e-3
"""Of a step's change: errors below it are the same."""


@dataclass
class InferenceConfig:
    """When the agent changes its mind about the task.

    Attributes:
        max_tasks: how many tasks it may tell apart, at most.
        window: steps over which the present model's errors are averaged.
        surprise: averaged errors of so many times their level make it doubt.
        patience: steps that a doubt lasts before it decides.
        familiar: a known task is gone back to if the logarithm of how many times their level its
            model's errors were during the doubt is at most this share of the present one's; else a
            new task begins. Where the wrong model drives, even the right one is less sure.
        settle: planned steps with a new task before it is doubted.
        margin: another known task is gone back to only if its errors are less than this share of
            the present one's.
    """

    max_tasks: int = number(10, least=1)
    window: int = number(100, least=1)
    surprise: float = number(1.6, least=1)
    patience: int = number(60, least=1)
    familiar: float = number(0.5, least=0, most=1)
    settle: int = number(300, least=1)
    margin: float = number(0.8, least=0, most=1)


class TaskInference:
    """Follows the errors of all known models while the agent acts, and decides with hysteresis.

    The level of a model is the mean absolute error to expect of it in each dimension while it is
    the right one; errors are compared with it dimension by dimension, and the mean of the ratios
    counts: what is always predicted well says most.

    Attributes:
        current: the task that the agent believes to be in, counted from 0 as they were created.
        levels: of each known task [O], empty until the agent has planned in it.
        squares: the same of squared errors, followed in the same way.
    """

    def __init__(self, config: InferenceConfig) -> None:
        self.config = config
        self.current = -1
        self.levels: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.running = torch.zeros(0)
        self.doubted = torch.zeros(0)
        self.learned = 0
        self.doubt = 0

    @property
    def known(self) -> int:
        """Tasks known so far."""
        return len(self.levels)

    @property
    def learned_tasks(self) -> list[int]:
        """Known tasks in which the agent has already planned; the first one from the beginning."""
        return [task for task, level in enumerate(self.levels) if len(level)] or [0]

    def expected_error(self, tasks: Sequence[int]) -> Tensor:
        """[O], RMS error of a right model, the mean over these tasks."""
        return torch.stack([self.squares[task] for task in tasks]).mean(0).sqrt()

    @property
    def suspicious(self) -> bool:
        """Whether errors are half way to a doubt: what happens now may belong to another task."""
        if self.learned < self.config.settle:
            return False
        return _ratio(self.running, self.levels[self.current]) > sqrt(self.config.surprise)

    def begin_new(self) -> None:
        """A new task, of which nothing is known yet, is the current one."""
        self.levels.append(torch.zeros(0))
        self.squares.append(torch.zeros(0))
        self.current = self.known - 1
        self.learned = self.doubt = 0

    def step(self, errors: Tensor) -> int | None:
        """Take in one planned step's absolute errors of each known model, [known, O] on the CPU.

        Returns:
            The task to go on with, if another one: a known one, or `known` for a new one.
        """
        config, error = self.config, errors[self.current]
        if self.learned < config.settle:
            self._learn(error)
            return None
        level = self.levels[self.current]
        self.running = self.running.lerp(error, 1 / config.window)
        ratio = _ratio(self.running, level)
        if ratio <= config.surprise:
            self.doubt = 0
            slower = WHILE_IMPROVING if ratio < 1 else WHILE_WORSENING
            self._follow(self.running, error, 1 / (slower * config.window))
            return None
        if not self.doubt:
            self.doubted = torch.zeros_like(errors)
        self.doubt += 1
        self.doubted = self.doubted + errors
        return self._decide() if self.doubt == config.patience else None

    def _learn(self, error: Tensor) -> None:
        """A mean in which the latest half of what there is counts most: the model improves."""
        if not self.learned:
            self.levels[self.current] = self.squares[self.current] = torch.zeros_like(error)
        self.learned += 1
        self._follow(error, error, max(2 / (self.learned + 1), 1 / self.config.window))
        self.running = self.levels[self.current]

    def _follow(self, towards: Tensor, error: Tensor, share: float) -> None:
        task = self.current
        self.levels[task] = self.levels[task].lerp(towards, share)
        self.squares[task] = self.squares[task].lerp(error.square(), share)

    def _decide(self) -> int | None:
        ratios = [
            _ratio(total / self.doubt, level)
            for total, level in zip(self.doubted, self.levels, strict=True)
        ]
        self.doubt = 0
        best = min(range(self.known), key=ratios.__getitem__)
        strange = ratios[best] > max(ratios[self.current], 1.0) ** self.config.familiar
        if strange and self.known < self.config.max_tasks:
            return self.known
        if ratios[best] >= self.config.margin * ratios[self.current]:
            return None
        self.current = best
        self.running = self.levels[best]
        return best

    def state(self) -> dict[str, Any]:
        """Everything that the next decision depends on."""
        return {
            "current": self.current,
            "levels": list(self.levels),
            "squares": list(self.squares),
            "running": self.running,
            "doubted": self.doubted,
            "learned": self.learned,
            "doubt": self.doubt,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.current = state["current"]
        self.levels, self.squares = list(state["levels"]), list(state["squares"])
        self.running, self.doubted = state["running"], state["doubted"]
        self.learned, self.doubt = state["learned"], state["doubt"]


def _ratio(errors: Tensor, level: Tensor) -> float:
    return float(((errors + SMALLEST) / (level + SMALLEST)).mean())


@dataclass(frozen=True)
class Decision:
    """The agent has changed its mind.

    Attributes:
        env_step: when.
        task: the true task at that time, from 0; the agent never sees it.
        chosen: the task it believes in from now on, as it counts them.
        new: it has made that one for the occasion.
    """

    env_step: int
    task: int
    chosen: int
    new: bool


def score_decisions(
    decisions: Sequence[Decision], boundaries: Sequence[int], identities: Sequence[int]
) -> dict[str, float | int | None]:
    """How well decisions fit the true boundaries.

    A decision is right if it is the first within a true task and makes a new task where the true
    one is new, or goes back to the one that was made for it where it is not.

    Args:
        boundaries: environment step at which each true task but the first began.
        identities: of each true task; those that are the same have the same number.

    Returns:
        decisions: how many there were; precision: share of them that were right; recall: share of
        the boundaries that were noticed by a right one; delay: environment steps from boundary to
        right decision, the mean. None where undefined.
    """
    made_for = {identities[0]: 0}
    delays = []
    for task, boundary in enumerate(boundaries, 1):
        first = next((d for d in decisions if d.task == task), None)
        if first is None:
            continue
        wanted = made_for.get(identities[task])
        if first.new if wanted is None else first.chosen == wanted:
            delays.append(first.env_step - boundary)
            made_for[identities[task]] = first.chosen
    return {
        "decisions": len(decisions),
        "precision": len(delays) / len(decisions) if decisions else None,
        "recall": len(delays) / len(boundaries) if boundaries else None,
        "delay": sum(delays) / len(delays) if delays else None,
    }
