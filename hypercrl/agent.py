"""Model-predictive control: observations in, actions out."""

import time

import torch
from torch import Tensor

from hypercrl.cuda_graph import CapturedFunction
from hypercrl.dynamics.model import Layers
from hypercrl.planning import CEM, Reward
from hypercrl_kernels import PackedLayers, pack_layers, rollout


class Agent:
    """Plans for B robots that do one task, replanning at every step.

    On CUDA the whole plan is one graph; it is captured anew when the task or the number of robots
    changes, and new weights are copied into it in place.

    Args:
        planner: the search.
        reward: the task's batched reward.
        robots: B, robots planned for in one call.
        generator: of the planner's noise; on the planner's device.
    """

    def __init__(
        self, planner: CEM, reward: Reward, robots: int, generator: torch.Generator
    ) -> None:
        self.planner = planner
        self.reward = reward
        self.generator = generator
        self.mean = planner.initial_mean(robots)
        self.plan_seconds: list[float] = []
        self._layers: Layers | PackedLayers = []
        self._plan = self._plan_eagerly
        if generator.device.type == "cuda":
            self._plan = CapturedFunction(self._plan_eagerly, [generator])

    def set_layers(self, layers: Layers) -> None:
        """Plan through these layers from now on (see `DynamicsModel.planning_layers`)."""
        if self.generator.device.type == "cuda":
            packed = self._layers if isinstance(self._layers, PackedLayers) else None
            self._layers = pack_layers(layers, out=packed)
        else:
            self._layers = layers

    def reset(self) -> None:
        """A new episode: start the search from the middle of the action range."""
        self.mean = self.planner.initial_mean(len(self.mean))

    def act(self, obs: Tensor) -> Tensor:
        """[B, O] → [B, A] on the CPU; waits for the result and records how long it took."""
        started = time.perf_counter()
        action, mean = self._plan(obs.to(self.mean.device, torch.float32), self.mean)
        self.mean = mean.clone()
        action = action.cpu()
        self.plan_seconds.append(time.perf_counter() - started)
        return action

    def _plan_eagerly(self, obs: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        return self.planner.plan(
            lambda start, actions: rollout(self._layers, start, actions),
            self.reward,
            obs,
            mean,
            self.generator,
        )
