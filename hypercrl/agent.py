"""Model-predictive control: observations in, actions out."""

import time
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from hypercrl.cuda_graph import CapturedFunction, CaptureError
from hypercrl.planning import Planner, Reward
from hypercrl_kernels import Layers, PackedLayers, layer_sizes, prepare_layers, rollout


class Agent:
    """Plans for B robots that do one task, replanning at every step.

    On CUDA the whole plan is one graph, whatever torch operations the reward is made of, and new
    weights are copied into it in place. With a reward that cannot be captured, because it waits for
    the device, it plans operation by operation.

    Args:
        planner: the search.
        reward: the task's batched reward.
        robots: B, robots planned for in one call.
        generator: of the planner's noise; on the planner's device.
    """

    def __init__(
        self, planner: Planner, reward: Reward, robots: int, generator: torch.Generator
    ) -> None:
        self.planner = planner
        self.reward = reward
        self.generator = generator
        self.start = planner.initial(robots)
        self.plan_seconds: list[float] = []
        self._sizes: tuple[int, ...] = ()
        self._layers: Layers | PackedLayers | None = None
        self._plan: Callable[[Tensor, Tensor], tuple[Tensor, ...]] = self._plan_eagerly

    def set_layers(self, layers: Layers) -> None:
        """Plan through these layers from now on (see `DynamicsModel.planning_layers`)."""
        if (sizes := layer_sizes(layers)) != self._sizes:
            # A network that has grown, as progressive ones do, needs a place and a graph of its own
            self._sizes, self._layers, self._plan = sizes, None, self._plan_eagerly
            if self.generator.device.type == "cuda":
                self._plan = CapturedFunction(self._plan_eagerly, [self.generator])
        self._layers = prepare_layers(layers, self.planner.precision, self._layers)

    def reset(self) -> None:
        """A new episode: start the search from the middle of the action range."""
        self.start = self.planner.initial(len(self.start))

    def act(self, obs: Tensor) -> Tensor:
        """[B, O] → [B, A] on the CPU; waits for the result and records how long it took."""
        started = time.perf_counter()
        obs = obs.to(self.start.device, torch.float32)
        try:
            action, start = self._plan(obs, self.start)
        except CaptureError as error:
            _notice_eager_planning(str(error).splitlines()[0])
            self._plan = self._plan_eagerly
            action, start = self._plan(obs, self.start)
        self.start = start.clone()
        action = action.cpu()
        self.plan_seconds.append(time.perf_counter() - started)
        return action

    def _plan_eagerly(self, obs: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        layers = self._layers
        if layers is None:
            raise RuntimeError("call set_layers before the first act")
        return self.planner.plan(
            lambda obs, actions: rollout(layers, obs, actions),
            self.reward,
            obs,
            start,
            self.generator,
        )


@cache
def _notice_eager_planning(reason: str) -> None:
    warnings.warn(f"planning without a CUDA graph, which is slower: {reason}", stacklevel=3)
