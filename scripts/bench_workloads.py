"""The planning problems that are timed, with random networks that stay bounded."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hypercrl.planning import CEM, CEMConfig
from hypercrl_kernels import Layers, TracedReturns, trace_returns
from hypercrl_kernels.planning.rollout_reference import rollout_reference

# Ceilings of an H100 measured with a large product and a large copy: flop/s, bytes/s; and what
# shared memory delivers to one multiprocessor's tensor cores, bytes/s at 1.75 GHz.
FLOPS, BANDWIDTH, SHARED = 790e12, 3.0e12, 128 * 1.75e9


@dataclass(frozen=True)
class Workload:
    """One planning problem; `own` is one network per robot, `members` those of an ensemble."""

    name: str
    obs: int
    action: int
    samples: int
    horizon: int
    elites: int
    hidden: tuple[int, ...]
    robots: int = 1
    own: bool = False
    members: int = 1
    iterations: int = 5


WORKLOADS = [
    Workload("push", 10, 2, 500, 20, 40, (200, 200)),
    Workload("door", 26, 7, 2000, 10, 40, (200,) * 4),
    Workload("cheetah", 18, 6, 500, 30, 50, (200,) * 4),
    Workload("push x64", 10, 2, 500, 20, 40, (200, 200), robots=64),
    Workload("push x64 own", 10, 2, 500, 20, 40, (200, 200), robots=64, own=True),
]

ENSEMBLES = [
    replace(work, name=f"{work.name}, 5 members", members=5)
    for work in WORKLOADS
    if work.robots == 1
]
"""Of plans alone: an ensemble's rollout is that of so many robots with networks of their own."""


def network_flops(work: Workload) -> int:
    """Floating-point operations of the products of one transition of the model."""
    sizes = (work.obs + work.action, *work.hidden, work.obs)
    return 2 * sum(a * b for a, b in itertools.pairwise(sizes))


def reward(_: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    """Four planar points to their goals, and a price on motion: the shape of a pushing reward."""
    points = next_obs[..., -8:].unflatten(-1, (4, 2))
    distance = (points - 0.1).norm(dim=-1)
    near = (1 - torch.tanh(10 * distance)).sum(-1)
    return (near - 0.25 * action.norm(dim=-1)) / 4


class Problem:
    """A workload's tensors: a random network that stays bounded, a start, and controls."""

    def __init__(self, work: Workload, device: torch.device) -> None:
        self.work = work
        g = torch.Generator().manual_seed(0)
        sizes = [work.obs + work.action, *work.hidden, work.obs]
        lead = (work.robots,) if work.own else (work.members,) if work.members > 1 else ()
        self.layers: Layers = [
            (
                (torch.randn(*lead, o, i, generator=g) * (2 / i) ** 0.5).to(device),
                (0.1 * torch.randn(*lead, o, generator=g)).to(device),
            )
            for i, o in itertools.pairwise(sizes)
        ]
        self.layers[-1][0].mul_(0.05)
        self.state = torch.randn(work.robots, work.obs, generator=g).to(device)
        shape = (work.robots, work.samples, work.horizon, work.action)
        self.controls = torch.rand(shape, generator=g).mul_(2).sub_(1).to(device)
        ones = torch.ones(work.action, device=device)
        config = CEMConfig(
            samples=work.samples,
            horizon=work.horizon,
            iterations=work.iterations,
            elites=work.elites,
        )
        self.planner = CEM(config, -ones, ones)

    def exact(self) -> Tensor:
        double = [(w.double(), b.double()) for w, b in self.layers]
        return rollout_reference(double, self.state.double(), self.controls.double())

    def traced(self) -> TracedReturns | None:
        """The kernel that sums the reward, None on a CPU."""
        work, device = self.work, self.state.device
        return trace_returns(reward, None, work.obs, work.action, work.horizon, device)

    def plan(
        self,
        roll: Callable[..., Tensor],
        layers: Any,
        reward_fn: Any = reward,
        returns: TracedReturns | None = None,
    ) -> Callable:
        """A function (obs, start) → (action, start) and its generator."""
        generator = torch.Generator(self.state.device).manual_seed(1)

        def run(obs: Tensor, start: Tensor) -> tuple[Tensor, ...]:
            return self.planner.plan(
                lambda state, actions: roll(layers, state, actions),
                reward_fn,
                obs,
                start,
                generator,
                returns=returns,
            )

        run.generator = generator  # type: ignore[attr-defined]
        return run

    def floor(self) -> dict[str, float]:
        """Microseconds below which one rollout cannot be, by three counts."""
        work = self.work
        weights = sum(w[0].numel() if work.own else w.numel() for w, _ in self.layers)
        steps = work.robots * work.samples * work.horizon
        moved = 4 * steps * (work.obs + work.action)
        return {
            "flop_us": 1e6 * 2 * weights * steps / FLOPS,
            "bytes_us": 1e6 * moved / BANDWIDTH,
            "weights_us": 1e6 * 2 * weights * work.horizon / SHARED,
        }
