"""Planners of other libraries on the same problem: same weights, reward, samples, bounds.

Each is a function obs [O] → action [A]. One that cannot be imported, made or called, for whatever
reason, is left out with a line that says why. Beside the extra `bench`:

- mbrl-lib pins an old Hydra: pip install --no-deps mbrl termcolor tqdm
- stable-worldmodel imports OpenCV, which it does not ask for, and torchvision, of the release that
  goes with torch: pip install stable-worldmodel opencv-python-headless
- TD-MPC2 is not on the package index: PYTHONPATH=CHECKOUT/tdmpc2, the folder of tdmpc2.py
"""

# The libraries need not be there.
# pyright: reportMissingImports=false

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from bench_workloads import Problem, network_flops, reward
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

Plan = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Peer:
    """A planner that was made and called once; `steps` is how often a plan asks the model."""

    name: str
    plan: Plan
    steps: int


def peers(problem: Problem) -> tuple[list[Peer], dict[str, str]]:
    """Everything there is to compare with, and by name why something was left out."""
    found, left_out = [], {}
    for name, maker in MAKERS.items():
        try:
            plan = maker(problem)
            plan(problem.state[0])
            found.append(Peer(name, plan, model_steps(problem, plan)))
        except (Exception, SystemExit) as error:
            first = next(iter(str(error).strip().splitlines()), "")
            left_out[name] = f"{type(error).__name__}: {first}"[:160]
    return found, left_out


def model_steps(problem: Problem, plan: Callable[[Tensor], Any]) -> int:
    """Transitions that one plan predicts, counted by its products, without compiling it."""
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counted:
        plan(problem.state[0])
    return round(counted.get_total_flops() / network_flops(problem.work))


class PlainLoop:
    """CEM as one would write it down: the model step by step, the reward step by step."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @torch.no_grad()
    def __call__(self, obs: Tensor) -> Tensor:
        return self._search(obs)[0][0]

    def _search(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        work = self.problem.work
        mean = obs.new_zeros(work.horizon, work.action)
        std = torch.ones_like(mean)
        for _ in range(work.iterations):
            actions = self._sample(mean, std)
            elites = actions[self._returns(obs, actions).topk(work.elites).indices]
            mean, std = elites.mean(0), elites.std(0, correction=0)
        return mean, std

    def _sample(self, mean: Tensor, std: Tensor) -> Tensor:
        noise = torch.randn(self.problem.work.samples, *mean.shape, device=mean.device)
        return (mean + std * noise).clamp(-1, 1)

    def _returns(self, obs: Tensor, actions: Tensor) -> Tensor:
        state, total = obs.expand(len(actions), -1), obs.new_zeros(len(actions))
        for t in range(actions.shape[1]):
            following = state + self._change(torch.cat([state, actions[:, t]], -1))
            total = total + reward(state, actions[:, t], following)
            state = following
        return total

    def _change(self, x: Tensor) -> Tensor:
        *hidden, (weight, bias) = self.problem.layers
        for w, b in hidden:
            x = torch.relu(F.linear(x, w, b))
        return F.linear(x, weight, bias)


class Original(PlainLoop):
    """With the structure of HyperCRL's program.

    It normalises at every step, and samples once more at the end for the best sequence.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        work, device = problem.work, problem.state.device
        inputs = work.obs + work.action
        self.scales = [
            (torch.zeros(width, device=device), torch.ones(width, device=device))
            for width in (inputs, work.obs)
        ]

    @torch.no_grad()
    def __call__(self, obs: Tensor) -> Tensor:
        actions = self._sample(*self._search(obs))
        return actions[self._returns(obs, actions).argmax(), 0]

    def _sample(self, mean: Tensor, std: Tensor) -> Tensor:
        noise = torch.randn(self.problem.work.samples, *mean.shape, device=mean.device)
        return mean + std * noise

    def _change(self, x: Tensor) -> Tensor:
        (mean, scale), (out_mean, out_scale) = self.scales
        return super()._change((x - mean) / scale) * out_scale + out_mean


def torchrl_env(problem: Problem) -> Any:
    """The model as torchrl's model-based environment."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.data import Bounded, Composite, Unbounded
    from torchrl.envs.model_based import ModelBasedEnvBase

    work, device, loop = problem.work, problem.state.device, PlainLoop(problem)

    def step(obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        following = obs + loop._change(torch.cat([obs, action], -1))
        return following, reward(obs, action, following)[..., None]

    class Model(ModelBasedEnvBase):
        def __init__(self) -> None:
            keys: Any = (["observation", "action"], ["observation", "reward"])
            super().__init__(TensorDictModule(step, *keys), device=device)
            self.observation_spec = Composite(
                observation=Unbounded(torch.Size([work.obs]), device=device)
            )
            self.state_spec = Composite(
                observation=Unbounded(torch.Size([work.obs]), device=device)
            )
            self.action_spec = Bounded(-1, 1, torch.Size([work.action]), device=device)
            self.reward_spec = Unbounded(torch.Size([1]), device=device)

        def _reset(self, tensordict: Any, **_: Any) -> Any:  # noqa: ARG002
            return TensorDict({}, self.batch_size, device=self.device)

    return Model()


def torchrl_plan(planner: Any) -> Plan:
    from tensordict import TensorDict

    @torch.no_grad()
    def plan(obs: Tensor) -> Tensor:
        done = torch.zeros(1, dtype=torch.bool, device=obs.device)
        start = {"observation": obs, "done": done, "terminated": done}
        return planner(TensorDict(start, [], device=obs.device))["action"]

    return plan


def torchrl_cem(problem: Problem) -> Plan:
    from torchrl.modules import CEMPlanner

    work = problem.work
    sizes = (work.horizon, work.iterations, work.samples, work.elites)
    return torchrl_plan(CEMPlanner(torchrl_env(problem), *sizes))


def torchrl_mppi(problem: Problem) -> Plan:
    """Its advantage is TD(λ) with a value of zero and λ = γ = 1: the undiscounted return."""
    from torchrl.modules import MPPIPlanner, ValueOperator
    from torchrl.objectives.value import TDLambdaEstimator

    work = problem.work
    value = torch.nn.Linear(work.obs, 1, device=problem.state.device)
    torch.nn.init.zeros_(value.weight)
    torch.nn.init.zeros_(value.bias)
    network = ValueOperator(value, in_keys=["observation"])
    advantage = TDLambdaEstimator(gamma=1.0, lmbda=1.0, value_network=network)
    sizes = (work.horizon, work.iterations, work.samples, work.elites)
    return torchrl_plan(MPPIPlanner(torchrl_env(problem), advantage, 1.0, *sizes))


def pytorch_icem_plan(problem: Problem) -> Plan:
    from pytorch_icem import iCEM

    work, loop, device = problem.work, PlainLoop(problem), problem.state.device
    # It wants as many axes of sigma as there are controls, and one axis later on.
    sigma = torch.full((1,) * (work.action - 1) + (work.action,), 0.7, device=device)
    planner = iCEM(
        lambda state, action: state + loop._change(torch.cat([state, action], -1)),
        lambda states, actions: -reward(states, actions, states).sum(-1),
        work.obs,
        work.action,
        sigma=sigma,  # pyright: ignore[reportArgumentType]
        num_samples=work.samples,
        num_elites=work.elites,
        horizon=work.horizon,
        warmup_iters=work.iterations,
        online_iters=work.iterations,
        device=str(device),
    )
    planner.sigma = planner.sigma.flatten()
    planner.reset()
    return torch.no_grad()(planner.command)  # pyright: ignore[reportReturnType]


def mbrl_cem(problem: Problem) -> Plan:
    from mbrl.planning.trajectory_opt import CEMOptimizer

    work, loop, device = problem.work, PlainLoop(problem), problem.state.device
    bound = torch.ones(work.horizon, work.action).tolist()
    optimiser = CEMOptimizer(
        work.iterations,
        work.elites / work.samples,
        work.samples,
        [[-b for b in row] for row in bound],
        bound,
        alpha=0.0,
        device=device,
        return_mean_elites=True,
        clipped_normal=True,
    )
    start = torch.zeros(work.horizon, work.action, device=device)

    @torch.no_grad()
    def plan(obs: Tensor) -> Tensor:
        return optimiser.optimize(lambda actions: loop._returns(obs, actions), start)[0]

    return plan


def stable_worldmodel_cem(problem: Problem) -> Plan:
    """It does not clip what it samples, and prints its time at every plan."""
    import gymnasium
    from stable_worldmodel.policy import PlanConfig
    from stable_worldmodel.solver import CEMSolver

    work, loop, device = problem.work, PlainLoop(problem), problem.state.device

    class Cost:
        def get_cost(self, info: dict[str, Tensor], actions: Tensor) -> Tensor:
            """info["state"] [B, N, O], actions [B, N, T, A] → [B, N]."""
            return -loop._returns(info["state"][0, 0], actions[0])[None]

    solver: Any = CEMSolver(
        Cost(),  # pyright: ignore[reportArgumentType]
        num_samples=work.samples,
        n_steps=work.iterations,
        topk=work.elites,
        device=device,
    )
    bounds = gymnasium.spaces.Box(-1, 1, (1, work.action))
    config = PlanConfig(horizon=work.horizon, receding_horizon=1)
    solver.configure(action_space=bounds, n_envs=1, config=config)

    def plan(obs: Tensor) -> Tensor:
        with redirect_stdout(io.StringIO()):
            return solver.solve({"state": obs[None]})["actions"][0, 0]

    return plan


class TdModel:
    """The problem as TD-MPC2's world model: latent states are states, and nothing lies beyond."""

    def __init__(self, problem: Problem) -> None:
        self.loop, self.actions = PlainLoop(problem), problem.work.action
        self.following: Tensor | None = None
        for tensor in itertools.chain(*problem.layers):
            # As its own networks' parameters are: its CUDA graph need not copy them at each plan.
            torch._dynamo.mark_static_address(tensor)

    def encode(self, obs: Tensor, _: None) -> Tensor:
        return obs

    def reward(self, state: Tensor, action: Tensor, _: None) -> Tensor:
        """[N, 1]. It is asked for before `next`: both are of one transition, predicted once."""
        self.following = state + self.loop._change(torch.cat([state, action], -1))
        return reward(state, action, self.following)[..., None]

    def next(self, state: Tensor, action: Tensor, _: None) -> Tensor:  # noqa: ARG002
        following, self.following = self.following, None
        assert following is not None
        return following

    def pi(self, state: Tensor, _: None) -> tuple[Tensor, None]:
        return state.new_zeros(len(state), self.actions), None

    def Q(self, state: Tensor, *_: Any, **__: Any) -> Tensor:
        return state.new_zeros(len(state), 1)


def td_mpc2(problem: Problem, compiled: bool) -> Plan:
    """Its planner on this model: no value at the horizon's end, no sequences of a policy."""
    from tdmpc2 import TDMPC2

    work, device = problem.work, problem.state.device

    class Planner(TDMPC2):
        def __init__(self) -> None:
            """Without the original's, which wants a GPU and its own networks."""
            torch.nn.Module.__init__(self)
            self.cfg = SimpleNamespace(
                horizon=work.horizon,
                iterations=work.iterations,
                num_samples=work.samples,
                num_elites=work.elites,
                num_pi_trajs=0,
                action_dim=work.action,
                max_std=1.0,
                min_std=0.05,
                temperature=0.5,
                num_bins=0,
                multitask=False,
                episodic=False,
                compile=compiled,
            )
            self.device, self.discount, self.model = device, 1.0, TdModel(problem)
            start = torch.zeros(work.horizon, work.action, device=device)
            self._prev_mean = torch.nn.Buffer(start)

    planner = Planner()

    @torch.no_grad()
    def plan(obs: Tensor) -> Tensor:
        return planner.plan(obs[None], t0=True, eval_mode=True)

    return plan


MAKERS: dict[str, Callable[[Problem], Plan]] = {
    "plain torch loop": PlainLoop,
    "the original's structure": Original,
    "torchrl CEM": torchrl_cem,
    "torchrl MPPI": torchrl_mppi,
    "pytorch_icem": pytorch_icem_plan,
    "mbrl-lib CEM": mbrl_cem,
    "stable-worldmodel CEM": stable_worldmodel_cem,
    "TD-MPC2": lambda problem: td_mpc2(problem, compiled=False),
    "TD-MPC2, compile=true": lambda problem: td_mpc2(problem, compiled=True),
}
