"""Is this another task? Decided from prediction errors alone: no label is given, and no boundary.

While it is trained and acts, the agent predicts every step with the model of every task that it
knows. How large an error to expect of a model that is right, its level, it knows from the time in
which it learned it.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field
from math import inf, log
from statistics import median
from typing import Any, get_type_hints

from hypercrl.base.saved import same_type
from hypercrl.base.settings import number

SMALLEST = 1e-6
"""Of a step's squared change: errors below it are the same."""

BURSTS = 6.25
"""A right model's mean squared error in levels: its bursts of errors are most of it. Four to nine
in pushing."""


LASTING = 1.5
"""How much larger a logarithm of errors is at every step where another model would be right."""

LARGEST = 4.0
"""What a step's logarithm counts for at most: a burst is a few large ones."""


@dataclass
class InferenceConfig:
    """When the agent infers that the task has changed; errors are squared, and in levels.

    Attributes:
        familiar: a known task is gone back to if the logarithm of how many times their level its
            model's errors were during the doubt is at most this share of the present one's; else a
            new task begins. Where the wrong model drives, even the right one is less sure.
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
    steady: float = number(
        120.0, least=0, help="sum of log errors beyond typical ones that alarms the agent as well"
    )
    patience: int = number(
        60, least=0, help="steps observed without learning, between alarm and decision"
    )
    familiar: float = number(
        0.4, least=0, most=1, help="back to a known task if its log error is this share at most"
    )
    margin: float = number(
        0.65,
        least=0,
        most=1,
        help="the share of the present error that a known task needs at max_tasks",
    )
    settle: int = number(500, least=1, help="planned steps with a new task before it is doubted")
    trial: int = number(
        0,
        least=0,
        help="episodes that known tasks are tried for, at most, in a doubt; 0: none",
    )
    trial_error: float = number(
        0.02,
        least=1e-6,
        most=0.3,
        once=0.5,
        only_with=("trial",),
        help="chance that a trial comes out wrong",
    )


@dataclass(frozen=True)
class Change:
    """Another task's model acts from now on.

    Attributes:
        task: a known one, or as many as there are for a new one.
        strange: of the steps that were taken for the latest task's so far, the newest, which
            hardly were.
        decided: whether it is believed in; else it has a trial, or had one and was right.
        first: of the strange steps, the newest, which are a new task's first ones.
        trials: of each known task that was tried, the least evidence against it; see `Trials`.
    """

    task: int
    strange: int
    decided: bool = True
    first: int = 0
    trials: dict[int, float] = field(default_factory=dict)


@dataclass(eq=False)
class TaskInference:
    """Follows the errors of all known models while the agent acts, and decides by their sum.

    The level of a model is the squared error to expect of it while it is the right one and in no
    doubt, a mean over the dimensions. With r_t the present model's squared error at step t over its
    level,

        S_t = max(0, S_{t−1} + r_t − allowance),

    a cumulative sum (Page, Continuous inspection schemes, Biometrika 1954). A doubt lasts while
    S > 0, and after an alarm, S > `alarm`, for `patience` steps more. They may be another task's,
    so the level stands still meanwhile: a right model's burst of errors ends before the alarm,
    while a wrong one's errors go on. If their mean is within the allowance nothing has changed, and
    the level becomes it: that is what to expect of the model now.

    Squares are mostly bursts, and a level that remembers how the model erred as it learned hides
    what errs a little more at every step, until the model has learned it over what it knew.
    Logarithms see that: with z_t that of the squared error and ζ its mean, which follows as the
    level does,

        L_t = max(0, L_{t−1} + min(max(z_t − ζ, −`LARGEST`), `LARGEST`) − `LASTING`),

    and L > `steady` is an alarm as well. ζ stands still while L > 0.

    Else the other known task whose model erred least, in its levels, is to be gone back to if that
    is `familiar`; or the task is new. The doubt lasts until one of both is done.

    Saved and loaded by its fields, all but the settings.

    Attributes:
        current: the task whose model acts, counted from 0 as they were created.
        levels: of each known task; 0 until the agent has planned in it.
        typical: ζ of each known task.
        learned: planned steps, up to `settle`, since the current task or a motion in it was new.
        sum: S; lasting: L.
        alarmed: steps since the alarm, with its own; 0: there was none.
        doubt: steps of the doubt so far.
        doubted: sum of the squared errors of each known model in it; empty in none.
        logarithms: sum of z of the present model in it.
    """

    config: InferenceConfig
    current: int = -1
    levels: list[float] = field(default_factory=list)
    typical: list[float] = field(default_factory=list)
    learned: int = 0
    lasting: float = 0.0
    sum: float = 0.0
    logarithms: float = 0.0
    doubt: int = 0
    alarmed: int = 0
    doubted: list[float] = field(default_factory=list)

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
    def doubts(self) -> bool:
        """Whether what happens now may not be the right model's usual errors."""
        return self.sum > 0 or self.suspicious

    @property
    def others(self) -> list[int]:
        """In a doubt, every known task but the present one, the one that errs least first."""
        others = [task for task in range(self.known) if task != self.current]
        return sorted(others, key=self._ratios().__getitem__)

    @property
    def suspicious(self) -> bool:
        """Whether there was an alarm: what happens now may belong to another task."""
        return self.alarmed > 0

    def begin_new(self) -> None:
        """A new task, of which nothing is known yet, is the current one."""
        self.levels.append(0.0)
        self.typical.append(0.0)
        self.current = self.known - 1
        self.learn_more()

    def go_back(self, task: int) -> None:
        """A known task is the current one."""
        self.current = task
        self._begin_anew()

    def stay(self) -> None:
        """The current task goes on: its errors during the doubt are what to expect of it now."""
        self.levels[self.current] = self.doubted[self.current] / self.doubt
        self.typical[self.current] = self.logarithms / self.doubt
        self._begin_anew()

    def learn_more(self) -> None:
        """The current task has shown a motion that no model knows: not in doubt until learned."""
        self.learned = 0
        self._begin_anew()

    def step(self, squares: Sequence[float]) -> Change | None:
        """Take in one planned step's squared error of each known model, a mean over dimensions."""
        config, square = self.config, squares[self.current]
        logarithm = log(square + SMALLEST)
        if self.learned < config.settle:
            # A mean in which the latest half of what there is counts most: the model improves.
            self.learned += 1
            share = max(2 / (self.learned + 1), 1 / config.window)
            self._follow(self.levels, square, share)
            self._follow(self.typical, logarithm, share)
            return None
        ratio = _ratio(square, self.levels[self.current])
        self.sum = max(0.0, self.sum + ratio - config.allowance)
        beyond = min(max(logarithm - self.typical[self.current], -LARGEST), LARGEST)
        self.lasting = max(0.0, self.lasting + beyond - LASTING)
        if not self.lasting:
            self._follow(self.typical, logarithm, 1 / config.window)
        if self.alarmed or self.sum > config.alarm or self.lasting > config.steady:
            self.alarmed += 1
        if not (self.sum or self.alarmed):
            self._end_doubt()
            self._follow(self.levels, square, 1 / config.window)
            return None
        self.doubt += 1
        self.logarithms += logarithm
        before = self.doubted or [0.0] * self.known
        self.doubted = [total + new for total, new in zip(before, squares, strict=True)]
        return self._judge_doubt() if self.alarmed > config.patience else None

    def _follow(self, means: list[float], value: float, share: float) -> None:
        means[self.current] += share * (value - means[self.current])

    def _begin_anew(self) -> None:
        self.lasting = 0.0
        self._end_doubt()

    def _end_doubt(self) -> None:
        self.sum = self.logarithms = 0.0
        self.doubt = self.alarmed = 0
        self.doubted = []

    def _judge_doubt(self) -> Change | None:
        config, present, ratios = self.config, self.current, self._ratios()
        best = next(iter(self.others), present)
        least = inf if best == present else ratios[best]
        wrong = ratios[present] > config.allowance
        familiar = least <= ratios[present] ** config.familiar
        strange = self.doubt if present == self.known - 1 else 0
        if wrong and not familiar and self.known < config.max_tasks:
            return Change(self.known, strange)
        if wrong and (familiar or least < config.margin * ratios[present]):
            return Change(best, strange)
        self.stay()
        return None

    def _ratios(self) -> list[float]:
        """Mean errors during the doubt, in levels."""
        totals = zip(self.doubted, self.levels, strict=True)
        return [_ratio(total / self.doubt, level) for total, level in totals]

    def state(self) -> dict[str, Any]:
        """Everything that the next decision depends on."""
        state = asdict(self)
        del state["config"]
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            LookupError, ValueError: it is not of an inference.
        """
        if "typical" not in state:  # saved before there were logarithms
            state = {**state, **_without_logarithms(state)}
        types = get_type_hints(TaskInference)
        for name in self.state():
            setattr(self, name, copy(same_type(name, state[name], types[name])))
        tasks = range(self.known) if self.known else [-1]
        lengths = len(self.typical) == self.known and len(self.doubted) in (0, self.known)
        if self.current not in tasks or not lengths:
            raise ValueError(f"it is not of {self.known} tasks")


def _without_logarithms(state: Mapping[str, Any]) -> dict[str, Any]:
    """What there would have been beside such a state, from the means that there are: those of
    logarithms are below these ones' logarithms, so that there is no alarm too early.

    Raises:
        LookupError, ValueError: it is not of an inference.
    """
    levels = same_type("levels", state["levels"], list[float])
    doubted = same_type("doubted", state["doubted"], list[float])
    doubt, current = same_type("doubt", state["doubt"], int), state["current"]
    during = doubted[current] / doubt if doubt else 0.0
    return {
        "typical": [log(level + SMALLEST) for level in levels],
        "lasting": 0.0,
        "logarithms": doubt * log(during + SMALLEST),
    }


def _ratio(square: float, level: float) -> float:
    return (square + SMALLEST) / (level + SMALLEST)
