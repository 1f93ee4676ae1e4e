"""Is this another task? Decided from prediction errors alone: no label is given, and no boundary.

While it is trained and acts, the agent predicts every step with the model of every task that it
knows. How large an error to expect of a model that is right, its level, it knows from the time in
which it learned it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any

from hypercrl.base.saved import same_type
from hypercrl.base.settings import number

SMALLEST = 1e-6
"""Of a step's squared change: errors below it are the same."""

BURSTS = 6.25
"""A right model's mean squared error in levels: its bursts of errors are most of it. Four to nine
in pushing."""


USUAL = 300
"""Steps over which the usual error of a model follows its errors: they come in bursts."""


@dataclass
class InferenceConfig:
    """When the agent infers that the task has changed; errors are squared.

    Attributes:
        hearing: five episodes of pushing are 300.
        familiar: where the wrong model drives, even the right one is less sure. After a hearing it
            is the logarithm of the task's error over its usual one, at most: 0.4 is 1.5 times.
        settle: also before a new task is a hypothesis in evaluation: its model has to learn first.
    """

    max_tasks: int = number(10, least=1, help="how many tasks may be distinguished, at most")
    window: int = number(
        100, least=1, help="planned steps over which a level follows its model's errors"
    )
    allowance: float = number(
        4.0, least=1, help="errors of so many times their level are not held against a model"
    )
    alarm: float = number(
        600.0, least=0, help="sum of errors beyond the allowance that alarms the agent"
    )
    patience: int = number(
        60, least=0, help="steps observed without learning, between alarm and decision"
    )
    hearing: int = number(
        0,
        least=0,
        help="steps in which a known task's model acts to be judged; 0: judged as they are",
    )
    familiar: float = number(
        0.4,
        least=0,
        most=1,
        help="log error of a task gone back to, a share of the present one's (or: see hearings)",
    )
    margin: float = number(
        0.65,
        least=0,
        most=1,
        help="the share of the present error that a known task needs at max_tasks",
    )
    settle: int = number(500, least=1, help="planned steps with a new task before it is doubted")


@dataclass(frozen=True)
class Change:
    """Another task's model acts from now on.

    Attributes:
        task: a known one, or as many as there are for a new one.
        decided: whether the agent has changed its mind; else that one only has a hearing, or was
            right after all.
        strange: of the steps that were taken for the latest task's so far, the newest, which
            hardly were.
    """

    task: int
    decided: bool
    strange: int


class TaskInference:
    """Follows the errors of all known models while the agent acts, and decides by their sum.

    The level of a model is the squared error to expect of it while it is the right one and in no
    doubt, a mean over the dimensions. With r_t the present model's squared error at step t over its
    level,

        S_t = max(0, S_{t−1} + r_t − allowance),

    a cumulative sum (Page, Continuous inspection schemes, Biometrika 1954). A doubt lasts while
    S > 0, and after an alarm for `patience` steps more. They may be another task's, so the level
    stands still meanwhile: a right model's burst of errors ends before the alarm, while a wrong
    one's errors go on. If their mean is within the allowance nothing has changed, and the level
    becomes it: that is what to expect of the model now.

    Else, without hearings, the known task whose model erred least, in its levels, is gone back to
    if the logarithm of that is a `familiar` share of the present one's at most; or the task is new.

    With them, every other known task has a hearing, the one whose model erred least first. Where a
    wrong model acts the right one errs as well, since it has seen nothing like it; so each is
    judged by what it errs while it acts itself, from the next episode on, as it did when it learned
    what its usual error is. The first one that is `familiar` is gone back to. If there is none the
    task is new. A present one that was gone back to itself is heard last: it learns no more, so
    that its errors are not those that it would learn from, and may wander off.

    Attributes:
        current: the task whose model acts, counted from 0 as they were created.
        levels: of each known task; 0 until the agent has planned in it.
        usual: mean squared error of each known task's model while it was in no doubt or the doubt
            came to nothing: bursts are most of it.
    """

    def __init__(self, config: InferenceConfig) -> None:
        self.config = config
        self.current = -1
        self.levels: list[float] = []
        self.usual: list[float] = []
        self.learned = 0
        self._end_doubt()

    @property
    def known(self) -> int:
        """Tasks known so far."""
        return len(self.levels)

    @property
    def settled(self) -> list[int]:
        """Known tasks whose models have learned for a while; the first one from the beginning."""
        unsettled = self.current if self.learned < self.config.settle else None
        return [task for task in range(self.known) if task != unsettled] or [0]

    @property
    def expected_error(self) -> float:
        """Mean squared error of a right model: of the median settled one, as one may be ill
        learned."""
        return BURSTS * median(self.levels[task] for task in self.settled)

    @property
    def suspicious(self) -> bool:
        """Whether there was an alarm: what happens now may belong to another task."""
        return self.alarmed > 0

    @property
    def hears(self) -> bool:
        """Whether a task's model acts only to be judged by it."""
        return bool(self.verdicts)

    def begin_new(self) -> None:
        """A new task, of which nothing is known yet, is the current one."""
        self.levels.append(0.0)
        self.usual.append(0.0)
        self.current = self.known - 1
        self.learned = 0
        self._end_doubt()

    def learn_more(self) -> None:
        """The current task has shown a motion that no model knows: not in doubt until learned."""
        self.learned = 0
        self._end_doubt()

    def step(self, squares: Sequence[float], ended: bool = False) -> Change | None:
        """Take in one planned step's squared error of each known model, a mean over dimensions.

        Args:
            ended: the episode, with this step.
        """
        config, square = self.config, squares[self.current]
        if self.hears:
            return self._hear(square, ended)
        if self.learned < config.settle:
            # A mean in which the latest half of what there is counts most: the model improves.
            self.learned += 1
            self._follow(square, 2 / (self.learned + 1))
            return None
        ratio = _ratio(square, self.levels[self.current])
        self.sum = max(0.0, self.sum + ratio - config.allowance)
        if not (self.sum or self.alarmed):
            self._come_to_nothing()
            self._follow(square)
            return None
        self.doubt += 1
        before = self.doubted or [0.0] * self.known
        self.doubted = [total + new for total, new in zip(before, squares, strict=True)]
        if self.alarmed or self.sum > config.alarm:
            self.alarmed += 1
        return self._judge_doubt() if self.alarmed > config.patience else None

    def _follow(self, square: float, share: float = 0.0) -> None:
        config, present = self.config, self.current
        steps = ((self.levels, config.window), (self.usual, USUAL))
        for means, window in steps:
            means[present] += max(share, 1 / window) * (square - means[present])

    def _end_doubt(self) -> None:
        self.sum = 0.0
        self.doubt = self.alarmed = 0
        self.doubted: list[float] = []
        self.verdicts: dict[int, float] = {}
        self.unheard: list[int] = []
        self._begin_hearing()

    def _come_to_nothing(self) -> None:
        """The doubt's errors were the right model's, and are usual."""
        if self.doubt:
            self._count_in(self.doubted[self.current] / self.doubt, self.doubt)
        self._end_doubt()

    def _count_in(self, error: float, steps: int) -> None:
        """So many steps of this mean error were usual."""
        forgotten = (1 - 1 / USUAL) ** steps
        self.usual[self.current] = error + forgotten * (self.usual[self.current] - error)

    def _stay(self) -> None:
        self.levels[self.current] = self.doubted[self.current] / self.doubt
        self._come_to_nothing()

    def _judge_doubt(self) -> Change | None:
        present, levels, usual = self.current, self.levels, self.usual
        errors = [total / self.doubt for total in self.doubted]
        usual_for_it = _ratio(errors[present], levels[present]) <= self.config.allowance
        if usual_for_it or self.known == self.config.max_tasks == 1:
            self._stay()
            return None
        strange = self.doubt if present == self.known - 1 else 0
        if not self.config.hearing:
            return self._choose_at_once(errors, strange)
        ratios = [_ratio(error, own) for error, own in zip(errors, usual, strict=True)]
        self.verdicts = {present: ratios[present]}
        self.unheard = sorted(set(range(self.known)) - {present}, key=ratios.__getitem__)
        if present < self.known - 1:
            self.unheard.append(present)
        return self._go_on(strange)

    def _choose_at_once(self, errors: Sequence[float], strange: int) -> Change | None:
        config, present = self.config, self.current
        ratios = [_ratio(error, own) for error, own in zip(errors, self.levels, strict=True)]
        best = min(range(self.known), key=ratios.__getitem__)
        familiar = ratios[best] <= ratios[present] ** config.familiar
        if not familiar and self.known < config.max_tasks:
            return Change(self.known, True, strange)  # in doubt until it begins
        if not familiar and ratios[best] >= config.margin * ratios[present]:
            self._stay()
            return None
        self.current = best
        self._end_doubt()
        return Change(best, True, strange)

    def _begin_hearing(self) -> None:
        self.waited = self.heard = 0
        self.total = 0.0

    def _hear(self, square: float, ended: bool) -> Change | None:
        config = self.config
        if self.waited < config.hearing:  # for an episode of its own, or as long as the hearing is
            self.waited = config.hearing if ended else self.waited + 1
            return None
        self.heard += 1
        self.total += square
        usual = self.usual[self.current]
        if log(_ratio(self.total / config.hearing, usual)) > config.familiar:  # whatever comes
            self.verdicts[self.current] = _ratio(self.total / self.heard, usual)
            return self._go_on()
        if self.heard < config.hearing:
            return None
        self._count_in(self.total / self.heard, self.heard)
        return self._settle_on(self.current)

    def _go_on(self, strange: int = 0) -> Change:
        """The next hearing, or what is to be done when there is none left."""
        self._begin_hearing()
        if self.unheard:
            self.current = self.unheard.pop(0)
            return Change(self.current, False, strange)
        if self.known < self.config.max_tasks:
            return Change(self.known, True, strange)  # in doubt until it begins
        present, best = next(iter(self.verdicts)), min(self.verdicts, key=self.verdicts.__getitem__)
        least_wrong = self.verdicts[best] < self.config.margin * self.verdicts[present]
        return self._settle_on(best if least_wrong else present, strange)

    def _settle_on(self, task: int, strange: int = 0) -> Change:
        changed = task != next(iter(self.verdicts))
        self.current = task
        if changed:
            self._end_doubt()
        else:
            self._stay()
        return Change(task, changed, strange)

    def state(self) -> dict[str, Any]:
        """Everything that the next decision depends on."""
        return {
            "current": self.current,
            "levels": list(self.levels),
            "usual": list(self.usual),
            "learned": self.learned,
            "sum": self.sum,
            "doubt": self.doubt,
            "alarmed": self.alarmed,
            "doubted": list(self.doubted),
            "verdicts": [[task, ratio] for task, ratio in self.verdicts.items()],
            "unheard": list(self.unheard),
            "waited": self.waited,
            "heard": self.heard,
            "total": self.total,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of an inference.
        """
        for name, own in self.state().items():
            kind = list if isinstance(own, list) else type(own)
            same_type(name, state[name], kind)
        self.current = state["current"]
        self.levels, self.usual = list(state["levels"]), list(state["usual"])
        self.learned, self.sum = state["learned"], state["sum"]
        self.doubt, self.alarmed = state["doubt"], state["alarmed"]
        self.doubted = list(state["doubted"])
        self.verdicts = {int(task): float(ratio) for task, ratio in state["verdicts"]}
        self.unheard = same_type("unheard", state["unheard"], list[int])
        hearings = {*self.verdicts, *self.unheard}
        if len(self.usual) != self.known or not hearings <= {*range(self.known)}:
            raise ValueError(f"it is not of {self.known} tasks")
        self.waited, self.heard, self.total = state["waited"], state["heard"], state["total"]


def _ratio(square: float, level: float) -> float:
    return (square + SMALLEST) / (level + SMALLEST)


@dataclass(frozen=True)
class Decision:
    """The agent has changed its mind.

    Attributes:
        env_step: when.
        task: the true task at that time, from 0; the agent never sees it.
        chosen: the task inferred, in effect from now on, as it counts them.
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
