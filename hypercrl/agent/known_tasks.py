"""Beliefs of an agent that is given neither the task's label nor its boundaries."""

from abc import ABC
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hypercrl.agent.belief import Belief
from hypercrl.base.saved import same_kind
from hypercrl.dynamics.model import Layers, PlanningLayers
from hypercrl.replay.transitions import Batch
from hypercrl_kernels import mean_layers, rollout

EVIDENCE = 0.1
"""Share of a step's evidence that counts: where one step errs, the next ones err alike."""


class KnownTasks(Belief, ABC):
    """Predicts every step with the model of every known task, to see which of them is right.

    Args:
        beliefs: of the same B robots, one for each of T known tasks; all of M hypotheses, members
            of an ensemble, or of one.
        scale: [O] of a step's change, which makes errors comparable.
        robots: B.

    Attributes:
        errors: [B, T, O] of the latest step in units of `scale`. An ensemble predicts the mean of
            its members.
    """

    changes = True

    def __init__(self, beliefs: Sequence[Belief], scale: Tensor, robots: int) -> None:
        super().__init__()
        self.beliefs = list(beliefs)
        self.layers_change = any(belief.layers_change for belief in beliefs)
        self.errors = scale.new_zeros(robots, len(self.beliefs), len(scale))
        self.members = self.beliefs[0].hypotheses
        self._scale = scale
        self._all = self._of_all()

    def reset(self, robots: Sequence[int] | None = None) -> None:
        for belief in self.beliefs:
            belief.reset(robots)

    def observe(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        obs, action, next_obs = (p.to(self._scale) for p in (obs, action, next_obs))
        robots, tasks, _ = self.errors.shape
        if self.layers_change:
            self._all = self._of_all()
        each = tasks * self.members
        starts, controls = (p.repeat_interleave(each, 0) for p in (obs, action[:, None, None]))
        predicted = rollout(self._all, starts, controls, "tf32x3")[:, 0, 1]
        error = predicted.view(robots, tasks, self.members, -1).mean(2) - next_obs[:, None]
        self.errors.copy_(error / self._scale)
        for belief in self.beliefs:
            belief.observe(obs, action, next_obs)
        self.seconds += self.beliefs[0].seconds
        self.beliefs[0].seconds = []

    def recall(self, episodes: Sequence[Batch]) -> None:
        for belief in self.beliefs:
            belief.recall(episodes)

    def state(self) -> dict[str, Any]:
        return {"beliefs": [belief.state() for belief in self.beliefs]}

    def load_state(self, state: dict[str, Any]) -> None:
        for belief, remembered in zip(self.beliefs, state["beliefs"], strict=True):
            belief.load_state(remembered)

    def _of_all(self) -> Layers:
        """Of the mean prediction, [B T M, ...]: tasks share no bounds of a variance."""
        robots = len(self.errors)
        each = [mean_layers(belief.layers()) for belief in self.beliefs]
        return [
            (
                _together([weight for weight, _ in layer], robots, 3),
                _together([bias for _, bias in layer], robots, 2),
            )
            for layer in zip(*each, strict=True)
        ]


class Watched(KnownTasks):
    """All probability is on one task; whether errors contradict that is for others to judge.

    Args:
        beliefs, scale, robots: see `KnownTasks`.
        believed: which of the tasks.
    """

    def __init__(
        self, beliefs: Sequence[Belief], scale: Tensor, robots: int, believed: int
    ) -> None:
        super().__init__(beliefs, scale, robots)
        self.hypotheses = self.members
        self.believed = believed

    def layers(self) -> PlanningLayers:
        return list(mean_layers(self.beliefs[self.believed].layers()))

    def probabilities(self) -> Tensor | None:
        return self.beliefs[self.believed].probabilities()


class TaskPosterior(KnownTasks):
    """Every known task is possible until errors tell them apart, and a plan is for all of them.

    Bayes' rule after every step, from the same probability for each task: with e_m the error of
    model m, and C_m the covariance of its usual ones,

        log p_m ← log p_m − ½ κ (e_m^T C_m⁻¹ e_m + log |C_m|) + const,   κ = `EVIDENCE`,

    a normal likelihood to the power κ, since a step's errors are much like the last one's
    (Grünwald, The safe Bayesian, ALT 2012). What a right model hardly ever errs in, as in the
    motion of its own tip, says at once that a model is wrong; what it often errs in, as at a
    touch, says little; and dimensions that err together, as the corners of a box do, say it once.

    What is undecided is planned for as such: what is good whichever task it is, such as a cautious
    first push, comes before what is good in one and bad in another.

    Args:
        beliefs, scale, robots: see `KnownTasks`; T > 1.
        covariances: [T, O, O], positive definite, of the usual errors of each model, in units of
            `scale`.

    Attributes:
        evidence: [B, T], the logarithm of the probability of each task, up to a constant.
    """

    def __init__(
        self, beliefs: Sequence[Belief], scale: Tensor, robots: int, covariances: Tensor
    ) -> None:
        super().__init__(beliefs, scale, robots)
        self.hypotheses = len(self.beliefs) * self.members
        self.evidence = scale.new_zeros(robots, len(self.beliefs))
        factors = torch.linalg.cholesky(covariances.cpu().double())
        whole = torch.eye(len(scale), dtype=factors.dtype).expand_as(factors)
        whitening = torch.linalg.solve_triangular(factors, whole, upper=False)
        log_widths = 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
        self._whitening, self._log_widths = whitening.to(scale), log_widths.to(scale)

    def layers(self) -> PlanningLayers:
        if self.layers_change:
            self._all = self._of_all()
        return self._all

    def probabilities(self) -> Tensor:
        return (self.evidence.softmax(1) / self.members).repeat_interleave(self.members, 1)

    def reset(self, robots: Sequence[int] | None = None) -> None:
        super().reset(robots)
        self.evidence[slice(None) if robots is None else list(robots)] = 0.0

    def observe(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        super().observe(obs, action, next_obs)
        white = (self._whitening * self.errors[:, :, None]).sum(-1)
        self.evidence -= 0.5 * EVIDENCE * (white.square().sum(-1) + self._log_widths)

    def recall(self, episodes: Sequence[Batch]) -> None:
        (episode,) = episodes  # it is asked of one robot alone
        self.reset()
        for step in range(len(episode)):
            now = slice(step, step + 1)
            self.observe(episode.obs[now], episode.action[now], episode.next_obs[now])

    def state(self) -> dict[str, Any]:
        return {**super().state(), "evidence": self.evidence}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.evidence.copy_(same_kind("evidence", state["evidence"], self.evidence))


def _together(tensors: Sequence[Tensor], robots: int, dims: int) -> Tensor:
    """[B T M, ...] from T tensors of `dims` dimensions, M for each robot, or one less, shared."""
    each = [t if t.dim() == dims else t.expand(robots, *t.shape) for t in tensors]
    return torch.stack([t.unflatten(0, (robots, -1)) for t in each], 1).flatten(0, 2)
