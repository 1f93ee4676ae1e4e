"""Beliefs of an agent about the robots that it plans for, and their updates by observations."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.saved import same_kind
from hypercrl.base.transfers import uploaded
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.dynamics.model import Layers, PlanningLayers
from hypercrl.replay.transitions import Batch
from hypercrl_kernels import GaussianLayers, mean_layers, rollout


class Belief(ABC):
    """What is known of B robots: a network to plan with for each, or one for each hypothesis.

    Attributes:
        changes: whether anything depends on what has been observed.
        layers_change: whether `layers` do.
        hypotheses: M, networks for each robot.
        seconds: what every observation took, of a memory.
    """

    changes: bool
    layers_change: bool
    hypotheses = 1

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @abstractmethod
    def layers(self) -> PlanningLayers:
        """Layers in observation units, as `DynamicsModel.planning_layers` makes them: shared by the
        robots, or one network each; of M > 1 hypotheses B M networks, a robot's together."""

    def probabilities(self) -> Tensor | None:
        """[B, M] of M > 1 hypotheses."""
        return None

    def predict(self, obs: Tensor, actions: Tensor) -> Tensor:
        """States [B, H + 1, O] to which actions [B, H, A] lead from [B, O], without looking.

        The mean over the hypotheses.
        """
        probabilities = self.probabilities()
        if probabilities is None:
            return rollout(self.layers(), obs, actions[:, None], "tf32x3")[:, 0]
        states = self._under_each_hypothesis(obs, actions)
        return (probabilities[:, :, None, None] * states).sum(1)

    @torch.no_grad()
    def spread(
        self, obs: Tensor, actions: Tensor, samples: int, generator: torch.Generator
    ) -> Tensor | None:
        """Standard deviation [B, H + 1, O] of the states that `predict` expects.

        Between the hypotheses, weighted by their probabilities; else, of a model that predicts a
        variance, between `samples` trajectories drawn from it. None where there is neither.
        """
        probabilities = self.probabilities()
        if probabilities is not None:
            weights = probabilities[:, :, None, None]
            states = self._under_each_hypothesis(obs, actions)
            mean = (weights * states).sum(1, keepdim=True)
            return (weights * (states - mean).square()).sum(1).sqrt()
        layers = self.layers()
        if not isinstance(layers, GaussianLayers):
            return None
        each = actions[:, None].expand(-1, samples, -1, -1).contiguous()
        shape = (*each.shape[:3], obs.shape[1])
        noise = torch.randn(shape, device=obs.device, generator=generator)
        return rollout(layers, obs, each, "tf32x3", noise).std(1, correction=0)

    def _under_each_hypothesis(self, obs: Tensor, actions: Tensor) -> Tensor:
        """[B, M, H + 1, O] from [B, O] and [B, H, A]."""
        starts, controls = (p.repeat_interleave(self.hypotheses, 0) for p in (obs, actions))
        states = rollout(self.layers(), starts, controls[:, None], "tf32x3")[:, 0]
        return states.view(len(obs), self.hypotheses, *states.shape[1:])

    @abstractmethod
    def reset(self, robots: Sequence[int] | None = None) -> None:
        """These robots, all by default, begin a new episode."""

    @abstractmethod
    def observe(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Take in what each robot has just done, [B, O], [B, A], [B, O]."""

    @abstractmethod
    def recall(self, episodes: Sequence[Batch]) -> None:
        """Take in at once what the present episode of each robot has been so far."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What is remembered of the present episodes."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""


class Told(Belief):
    """The task is given, and nothing else is hidden.

    Args:
        layers: of the task.
    """

    changes = layers_change = False

    def __init__(self, layers: PlanningLayers) -> None:
        super().__init__()
        self._layers = layers

    def layers(self) -> PlanningLayers:
        return self._layers

    def reset(self, robots: Sequence[int] | None = None) -> None:
        """An episode more changes nothing."""

    def observe(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Neither does a transition."""

    def recall(self, episodes: Sequence[Batch]) -> None:
        """Nor do many."""

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """There is nothing to restore."""


class Ensemble(Told):
    """The task is given, and nothing else is hidden; M members say what comes next, all alike.

    Args:
        layers: of the M members' networks, [M, ...].
        robots: B.
    """

    def __init__(self, layers: PlanningLayers, robots: int) -> None:
        super().__init__(layers)
        first = mean_layers(layers)[0][0]
        self.hypotheses = len(first)
        self._alike = first.new_full((robots, self.hypotheses), 1 / self.hypotheses)

    def layers(self) -> PlanningLayers:
        robots = len(self._alike)
        if not isinstance(self._layers, GaussianLayers):
            return _repeated(self._layers, robots)
        *mean, head = _repeated([*self._layers.mean, self._layers.head], robots)
        return GaussianLayers(mean, head, self._layers.bounds)

    def probabilities(self) -> Tensor:
        return self._alike

    def predict(self, obs: Tensor, actions: Tensor) -> Tensor:
        return self._under_each_hypothesis(obs, actions).mean(1)

    def spread(
        self,
        obs: Tensor,
        actions: Tensor,
        samples: int,  # noqa: ARG002
        generator: torch.Generator,  # noqa: ARG002
    ) -> Tensor:
        return self._under_each_hypothesis(obs, actions).std(1, correction=0)

    def _under_each_hypothesis(self, obs: Tensor, actions: Tensor) -> Tensor:
        """For any number of robots, one member's network for all of them after the other."""
        layers, controls = mean_layers(self._layers), actions[:, None]
        each = [[(w[m], b[m]) for w, b in layers] for m in range(self.hypotheses)]
        return torch.cat([rollout(member, obs, controls, "tf32x3") for member in each], 1)


def _repeated(layers: Layers, robots: int) -> Layers:
    return [(w.repeat(robots, 1, 1), b.repeat(robots, 1)) for w, b in layers]


class EpisodeMemory(Belief):
    """The task is given; hidden parameters are inferred by a memory of the robots' own episodes.

    On CUDA an update is one graph that writes the memory's state in place.

    Args:
        model: with the encoder.
        robots: B.
        layers: from contexts [B, C] to layers, see `Method.planner_layers`.
    """

    changes = layers_change = True

    def __init__(
        self, model: ContextModel, robots: int, layers: Callable[[Tensor | None], PlanningLayers]
    ) -> None:
        super().__init__()
        self.model = model
        self._layers = layers
        self._state = self._initial(robots)
        self._device = model.encoder.origin.device
        self._update: Callable[..., tuple[Tensor, ...]] = self._take_in
        if self._device.type == "cuda":
            self._update = CapturedFunction(self._take_in)

    def layers(self) -> PlanningLayers:
        return self._layers(self.model.encoder.read(self._state))

    def reset(self, robots: Sequence[int] | None = None) -> None:
        if robots is None:
            robots = range(len(self._state["context"]))
        self._write(self._initial(len(robots)), robots)

    def observe(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        started = time.perf_counter()
        parts = (uploaded(part, self._device) for part in (obs, action, next_obs))
        self._update(*parts)
        self.seconds.append(time.perf_counter() - started)

    @torch.no_grad()
    def recall(self, episodes: Sequence[Batch]) -> None:
        self.reset()
        for robot, episode in enumerate(episodes):
            if len(episode):
                tokens = self.model.tokens(episode.obs, episode.action, episode.next_obs)
                self._write(self.model.encoder.encode(tokens[None])[1], [robot])

    def state(self) -> dict[str, Any]:
        return dict(self._state)

    def load_state(self, state: dict[str, Any]) -> None:
        own = self._state.items()
        saved = {name: same_kind(name, state[name], value) for name, value in own}
        self._write(saved, range(len(self._state["context"])))

    @torch.no_grad()
    def _initial(self, robots: int) -> dict[str, Tensor]:
        """Some encoders learn it; with its history kept, no training step could be captured."""
        return self.model.encoder.initial(robots)

    def _write(self, state: dict[str, Tensor], robots: Sequence[int]) -> None:
        """Into the rows of these robots; in place, where a graph reads them."""
        rows = list(robots)
        for name, value in self._state.items():
            value[rows] = state[name]

    @torch.no_grad()
    def _take_in(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, ...]:
        token = self.model.tokens(obs, action, next_obs)
        return (self.model.encoder.step(self._state, token)["context"],)
