"""Is a known task back? Its model acts for some episodes, which are compared with its usual ones.

Where a wrong model acts, even the right one errs; what tells them apart is what each errs, and what
it is paid, while it acts itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

from hypercrl.agent.known_tasks import EVIDENCE
from hypercrl.agent.task_inference import SMALLEST
from hypercrl.agent.task_labels import Ended
from hypercrl.base.saved import same_kind, same_type

USUAL = 10
"""Episodes of its own task that are kept of each model, the latest ones."""

FEWEST = 3
"""Of them, that a trial needs."""

SHIFT = 2.0
"""Standard deviations by which a wrong model is worse than usual, by error and by return."""

TOGETHER = 0.5
"""Correlation of error and return of an episode; 0.3 to 0.6 in pushing."""

ALMOST = 1e-5
"""Of the largest return of some, or of a logarithm's unit: what they vary by less is rounding, as
of returns that are sums of float32."""

RIDGE = 1e-3
"""Of a covariance, in the mean of its diagonal: what hardly ever errs decides nothing alone."""

ALIKE = 0.25
"""Share of a step's evidence where it is not known which dimensions err together, and their mean
counts."""

FLOOR = 0.1
"""Of a covariance that a likelihood goes by, the share that is alike in all directions. In some a
model hardly ever errs, as where corners of a box would part, but what it errs there lasts, and sums
up while nothing moves."""


@dataclass(frozen=True)
class Episode:
    """One in which a single model acted.

    Attributes:
        moment: [O, O], mean outer product of its errors of one step, in units of a step's change.
        paid: the return.
    """

    moment: Tensor
    paid: float


def evidence(episode: Episode, usual: Sequence[Episode]) -> float:
    """How much more probable an episode is of a wrong model than of the right one, as a logarithm.

    From two deviations, in standard deviations of the usual episodes: x of the logarithm of the
    mean squared error through the inverse covariance of the usual ones, in which a dimension says
    as much as it says when the model is right, and several that err together say it once; and y of
    the return, which is smaller. A usual episode has no part in the covariance that its own error
    is measured by. Both are taken for normal, with the correlation ρ = `TOGETHER`, around 0 if the
    model is right and around δ = `SHIFT` if it is wrong:

        log p(x, y | wrong) − log p(x, y | right) = δ (x + y − δ) / (1 + ρ)

    Args:
        usual: at least `FEWEST`.

    Example:
        >>> usual = [Episode(torch.eye(1) * square, -square) for square in (0.5, 1.0, 2.0)]
        >>> [round(evidence(episode, usual), 1) for episode in (usual[1], usual[2])]
        [-3.0, -0.7]
    """
    moments = torch.stack([each.moment for each in usual]).double()
    others = (moments.sum(0) - moments) / (len(usual) - 1)
    mine = _through(moments, others).log().tolist()
    (error,) = _through(episode.moment[None].double(), moments.mean(0)).log().tolist()
    paid = [each.paid for each in usual]
    largest = max(map(abs, (episode.paid, *paid)))
    x = _deviation(error, mine, ALMOST)
    y = _deviation(-episode.paid, [-each for each in paid], ALMOST * largest)
    return SHIFT * (x + y - SHIFT) / (1 + TOGETHER)


def _deviation(value: float, usual: Sequence[float], least: float) -> float:
    """Of a value, the larger the worse, from others, whose mean is as uncertain as their number
    says.

    From others that are all alike, as sparse returns are, nobody knows how far it lies, but on
    which side. A worse one is strange; a better one is no more than as good as usual, or it would
    outweigh everything else.

    Args:
        least: others whose standard deviation is not above it are alike; 0 if all is 0.
    """
    spread = max(stdev(usual), least) * sqrt(1 + 1 / len(usual))
    deviation = (value - fmean(usual)) / (spread or 1.0)
    return deviation if stdev(usual) > least else max(deviation, 0.0)


def _through(moments: Tensor, covariance: Tensor) -> Tensor:
    """[N], positive, from [N, O, O], and a covariance [O, O] or one for each."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    ridge = (RIDGE * diagonal + 1e-12) * torch.eye(moments.shape[-1], dtype=moments.dtype)
    solved = torch.linalg.solve(covariance + ridge, moments)
    return solved.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-12)


class Trials:
    """Keeps what is usual of each known task's model, and tries known tasks one after the other.

    A trial is a sequential probability ratio test (Wald, Sequential tests of statistical
    hypotheses, Ann. Math. Stat. 16, 1945): `evidence` of episodes is summed up until it lies
    outside ±b, b = log (1 − error) / error, or there were so many episodes; then its sign decides.
    No episode counts for more than b / 2. If none comes out well, the task that has had the best
    episode is tried once more before a new one begins, as every trial is wrong now and then.

    Args:
        episodes: of a trial, at most; 0: there are none.
        error: chance that it comes out wrong.
        obs_size: O.

    Attributes:
        usual: latest episodes of each known task.
        doubted: episodes of the present task of which it is open whether they are its own.
        waiting: tasks to be tried, the one whose model acts first; empty: there is no trial.
        again: whether the one that is tried was tried before.
        total: evidence in this trial.
        results: of each task tried since the trials began, the least evidence of its episodes.
        steps: since then.
    """

    def __init__(self, episodes: int, error: float, obs_size: int) -> None:
        self.episodes = episodes
        self.error = error
        self._nothing = torch.zeros(obs_size, obs_size)
        self.usual: list[list[Episode]] = []
        self.end()

    @property
    def open(self) -> bool:
        """Whether a model acts that is tried."""
        return bool(self.waiting)

    def covariances(self, tasks: Sequence[int], expected: float) -> Tensor:
        """[T, O, O] of the usual errors of these tasks' models, in units of a step's change.

        With M_m the mean outer product over the n_m usual episodes of task m, M̄ the mean of the
        M_m, and γ = `FLOOR`,

            S_m = (n_m M_m + M̄) / (n_m + 1),   C_m = (1 − γ) S_m + γ tr(S_m) / O · I,

        regularised discriminant analysis (Friedman, JASA 1989): what a task's few episodes do not
        tell is taken from all tasks, and so is everything of a task of which there are none.

        Args:
            expected: squared error s² to expect of a right model, a mean over the dimensions. Where
                there are no usual episodes at all every C_m is a multiple of s² I by which a step's
                evidence is ½ `ALIKE` e² / s², with the mean e² over the dimensions.
        """
        size = len(self._nothing)
        unit = torch.eye(size, dtype=torch.float64)
        counts = torch.tensor([float(len(self.usual[task])) for task in tasks])[:, None, None]
        if not counts.any():
            width = EVIDENCE / ALIKE * size * (expected + SMALLEST)
            return width * unit.expand(len(tasks), -1, -1)
        sums = [
            sum((episode.moment.double() for episode in self.usual[task]), 0 * unit)
            for task in tasks
        ]
        total = torch.stack(sums)
        shared = (total / counts.clamp_min(1)).sum(0) / (counts > 0).sum()
        found = (total + shared) / (counts + 1)
        mean = found.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
        return (1 - FLOOR) * found + (FLOOR * mean + SMALLEST) * unit

    def begin_new(self) -> None:
        """One task more is known."""
        self.usual.append([])
        self.end()

    def begin(self, tasks: Sequence[int]) -> bool:
        """Try these from the next episode on, without those of which too little is known.

        Returns:
            Whether there is one to be tried.
        """
        self.end()
        if self.episodes:
            self.waiting = [task for task in tasks if len(self.usual[task]) >= FEWEST]
        return self.open

    def end(self) -> None:
        """Another model acts from now on, and it is believed in."""
        self.results: dict[int, float] = {}
        self.again = False
        self.steps = 0
        self._go_on([])

    def step(self, error: Tensor, ended: Ended | None) -> Episode | None:
        """Count one step in.

        Args:
            error: [O] of the model that acts, in units of a step's change.
            ended: the episode, if it ends here.

        Returns:
            The episode, if it has ended and the model has acted in all of it.
        """
        self.steps += self.open
        self._sum, self._counted = self._sum + error.outer(error), self._counted + 1
        if ended is None:
            return None
        episode = Episode(self._sum / self._counted, ended.episode_return)
        whole = self._counted == ended.length
        self._forget_episode()
        return episode if whole else None

    def keep(self, task: int) -> None:
        """What was in doubt is usual of this task."""
        self.usual[task] = [*self.usual[task], *self.doubted][-USUAL:]
        self.doubted = []

    def judge(self, episode: Episode) -> bool | None:
        """Take in an episode of the trial: whether the task is back. None: the trial goes on.

        If it is not, the next one, if there is one, is `waiting` for its own.
        """
        task, *others = self.waiting
        self.doubted.append(episode)
        bound = log((1 - self.error) / self.error)
        found = evidence(episode, self.usual[task])
        self.results[task] = min(self.results.get(task, inf), found)
        self.total += min(max(found, -bound / 2), bound / 2)
        if len(self.doubted) < self.episodes and abs(self.total) < bound:
            return None
        if self.total < 0:
            self.keep(task)
            return True
        if not (others or self.again):
            self.again = True
            others = [min(self.results, key=self.results.__getitem__)]
        self._go_on(others)
        return False

    def _go_on(self, tasks: Sequence[int]) -> None:
        """What is left of the present episode counts for none of them."""
        self.waiting = list(tasks)
        self.doubted: list[Episode] = []
        self.total = 0.0
        self._forget_episode()

    def _forget_episode(self) -> None:
        self._sum, self._counted = self._nothing, 0

    def state(self) -> dict[str, Any]:
        """Everything that the next verdict depends on."""
        return {
            "usual": [self._packed(episodes) for episodes in self.usual],
            "doubted": self._packed(self.doubted),
            "waiting": list(self.waiting),
            "results": [[task, found] for task, found in self.results.items()],
            "again": self.again,
            "total": self.total,
            "steps": self.steps,
            "sum": self._sum,
            "counted": self._counted,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such trials.
        """
        usual = same_type("usual", state["usual"], list)
        self.usual = [self._unpacked("usual", saved) for saved in usual]
        self.doubted = self._unpacked("doubted", state["doubted"])
        self.waiting = same_type("waiting", state["waiting"], list[int])
        self.results = {int(task): float(found) for task, found in state["results"]}
        self.again = same_type("again", state.get("again", False), bool)
        self.total = same_type("total", state.get("total", 0.0), float)
        self.steps = same_type("steps", state["steps"], int)
        self._counted = same_type("counted", state["counted"], int)
        self._sum = same_kind("sum", state["sum"], self._nothing)
        if not {*self.waiting, *self.results} <= {*range(len(self.usual))}:
            raise ValueError(f"trials are not of {len(self.usual)} tasks")

    def _packed(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        moments = [episode.moment for episode in episodes]
        return {
            "moments": torch.stack(moments) if moments else self._nothing[None][:0],
            "paid": [episode.paid for episode in episodes],
        }

    def _unpacked(self, name: str, saved: Any) -> list[Episode]:
        moments = same_kind(name, saved["moments"], self._nothing[None], rows=True)
        paid = same_type(name, saved["paid"], list[float])
        return [Episode(*parts) for parts in zip(moments.unbind(), paid, strict=True)]
