"""Model-predictive control: observations in, actions out."""

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from math import inf

import torch
from torch import Tensor

from hypercrl.agent.belief import Belief
from hypercrl.agent.realtime import Deadline
from hypercrl.agent.value import Value
from hypercrl.base.cuda_graph import CapturedFunction, CaptureError
from hypercrl.base.errors import first_line
from hypercrl.base.transfers import begin_download, uploaded
from hypercrl.planning import (
    Follow,
    Iteration,
    Planner,
    Returns,
    Reward,
    Rollout,
    Stop,
    Termination,
    trajectory_returns,
)
from hypercrl.planning.search import stacked
from hypercrl_envs import SimulatedRollout, Task, TaskSequence
from hypercrl_kernels import (
    GaussianLayers,
    Layers,
    LinearPolicies,
    PackedLayers,
    cores_apart,
    follow,
    layer_sizes,
    prepare_layers,
    rollout,
    trace_returns,
)


class Agent:
    """Plans for B robots that do one task, replanning at every step.

    On CUDA the whole plan is one graph, whatever torch operations the reward is made of, and new
    weights are copied into it in place. A reward that can be traced (`trace_returns`) is one kernel
    of it, but where a value is counted behind it. With a reward that cannot be captured, because it
    waits for the device, it plans operation by operation.

    Args:
        planner: the search.
        reward: the task's batched reward.
        robots: B, robots planned for in one call.
        generator: of the planner's noise, and of sampled states; on the planner's device.
        rollout: what to imagine with; without it, the layers of what it believes.
        termination: the task's, batched as the reward is; None: its episodes do not end.
        watch: keep in `searches` what the iterations of every plan came to, see
            `hypercrl.planning.search.stacked`.
        value: of the last state of a plan, whose rewards are discounted as it is; None: they are
            not, and nothing counts behind it. It may be trained on, in place.

    Attributes:
        belief: what it knows about the robots, see `believe`.
        plan_seconds: what every plan took.
        iterations: of the latest search.
    """

    def __init__(
        self,
        planner: Planner,
        reward: Reward,
        robots: int,
        generator: torch.Generator,
        rollout: Rollout | None = None,
        termination: Termination | None = None,
        watch: bool = False,
        value: Value | None = None,
    ) -> None:
        self.planner = planner
        self.reward = reward
        self.termination = termination
        self.generator = generator
        self.start = planner.initial(robots)
        self.plan_seconds: list[float] = []
        self.watch = watch
        self.searches: list[Tensor] = []
        self.iterations = 0
        self.belief: Belief | None = None
        self._sizes: tuple[int, ...] = ()
        self._layers: Layers | GaussianLayers | PackedLayers | None = None
        own = self._follow_layers if planner.follows else self._roll_layers_out
        self._rollout: Rollout | Follow = rollout or own
        self._value = value
        self._returns: Returns | None = None
        if value is not None:
            self._returns = partial(
                trajectory_returns,
                reward=reward,
                termination=termination,
                value=value,
                discount=value.discount,
            )
        self._captures = generator.device.type == "cuda" and rollout is None
        self._plan: Callable[..., tuple[Tensor, ...]] = self._plan_eagerly
        self._replay_seconds = inf
        self._switches = planner.config.propagation == "ts1"

    def believe(self, belief: Belief) -> None:
        """Plan through the layers of this belief from now on, and keep it up to date."""
        self.belief = belief
        self.set_layers(belief.layers(), belief.hypotheses)

    def observe(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """What the robots have just done, [B, O], [B, A], [B, O]."""
        if self.belief is not None:
            self.belief.observe(obs, action, next_obs)

    def set_layers(self, layers: Layers | GaussianLayers, hypotheses: int = 1) -> None:
        """Plan through these layers from now on, see `Belief.layers`."""
        if (sizes := (hypotheses, *layer_sizes(layers))) != self._sizes:
            # What has grown, a progressive network or the number of hypotheses, needs a place and a
            # graph of its own.
            self._sizes, self._layers, self._plan = sizes, None, self._plan_eagerly
            if self._captures:
                self._plan = CapturedFunction(self._plan_eagerly, [self.generator])
                self._replay_seconds = inf
                if self._value is None:
                    self._returns = self._traced_returns(layers)
        pack, precision = not self.planner.follows and not self._switches, self.planner.precision
        self._layers = prepare_layers(layers, precision, self._layers, pack)

    def reset(self, robots: Sequence[int] | None = None) -> None:
        """A new episode of these robots, of all by default: their searches start from the middle of
        the action range."""
        if robots is None:
            robots = range(len(self.start))
        self.start[list(robots)] = self.planner.initial(len(robots))
        if self.belief is not None:
            self.belief.reset(robots)

    def warm_up(self, obs: Tensor) -> None:
        """Plan for [B, O] until a plan takes as long as all later ones; leaves no other trace."""
        state = self.generator.get_state()
        for _ in range(CapturedFunction.EAGER_CALLS + 2):  # the last one is timed as a replay
            self.act(obs)
        self.generator.set_state(state)
        self.reset()
        self.plan_seconds.clear()
        self.searches.clear()

    def act(self, obs: Tensor, end: float | None = None) -> Tensor:
        """[B, O] → [B, A] on the CPU; waits for the result and records how long it took.

        Args:
            end: when the action is needed, by `time.perf_counter`: the search stops before an
                iteration that would end later, but not before its first one. On CUDA a graph that
                is known to be quick enough is replayed as a whole; otherwise iterations are run
                operation by operation.
        """
        return self.begin_act(obs, end)()

    def begin_act(self, obs: Tensor, end: float | None = None) -> Callable[[], Tensor]:
        """`act` in two halves: on CUDA the device plans while this process does other things.

        Returns:
            Waits for the action [B, A]; to be called once, before the next plan is begun.
        """
        started = time.perf_counter()
        inputs = [uploaded(obs, self.start.device), self.start]
        if self.belief is not None:
            if self.belief.layers_change:
                self.set_layers(self.belief.layers(), self.belief.hypotheses)
            if (probabilities := self.belief.probabilities()) is not None:
                inputs.append(probabilities)
        replays = isinstance(self._plan, CapturedFunction) and self._plan.captured
        if end is None or (replays and time.perf_counter() + self._replay_seconds <= end):
            action, start, *seen = self._plan_whole(inputs)
            self.iterations = self.planner.config.iterations
        else:
            replays, deadline = False, Deadline(end, self._wait_for_device())
            action, start, *seen = self._plan_eagerly(*inputs, stop=deadline)
            self.iterations = deadline.iterations
        self.start = start.clone()
        wait = begin_download([action, *seen])

        def finish() -> Tensor:
            found, *searches = wait()
            self.searches += searches
            self.plan_seconds.append(time.perf_counter() - started)
            if replays:
                self._replay_seconds = self.plan_seconds[-1]
            return found

        return finish

    def _plan_whole(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        try:
            return self._plan(*inputs)
        except CaptureError as error:
            _notice_eager_planning(first_line(error))
            self._plan = self._plan_eagerly
            return self._plan(*inputs)

    def _wait_for_device(self) -> Callable[[], None] | None:
        return torch.cuda.synchronize if self.start.is_cuda else None

    def _plan_eagerly(
        self,
        obs: Tensor,
        start: Tensor,
        probabilities: Tensor | None = None,
        stop: Stop | None = None,
    ) -> tuple[Tensor, ...]:
        """The action, the next start and, if it is watched, what the iterations came to."""
        iterations: list[Iteration] = []
        search = (obs, start, self.generator, probabilities, self.termination)
        watch = iterations.append if self.watch else None
        watched = (watch, stop, self._returns)
        with nullcontext() if obs.is_cuda else cores_apart():
            plan = self.planner.plan(self._rollout, self.reward, *search, *watched)
        return (*plan, stacked(iterations)) if iterations else plan

    def _traced_returns(self, layers: Layers | GaussianLayers) -> Returns | None:
        inputs, *_, obs = layer_sizes(layers)
        sizes = obs, inputs - obs, self.planner.config.horizon
        return trace_returns(self.reward, self.termination, *sizes, self.start.device)

    def _roll_layers_out(self, obs: Tensor, actions: Tensor) -> Tensor:
        noise, order = self._noise(actions.shape[:3], obs), self._order(actions.shape[:3], obs)
        return rollout(self._prepared(), obs, actions, noise=noise, order=order)

    def _follow_layers(self, obs: Tensor, policies: LinearPolicies) -> tuple[Tensor, Tensor]:
        shape = (*policies.offsets.shape[:2], policies.horizon)
        noise, order = self._noise(shape, obs), self._order(shape, obs)
        layers = self._prepared()
        assert not isinstance(layers, PackedLayers)
        return follow(layers, obs, policies, noise, order)

    def _prepared(self) -> Layers | GaussianLayers | PackedLayers:
        if self._layers is None:
            raise RuntimeError("call set_layers before the first act")
        return self._layers

    def _noise(self, shape: Sequence[int], obs: Tensor) -> Tensor | None:
        if not self.planner.config.sampled:
            return None
        width = obs.shape[1]
        return torch.randn((*shape, width), device=obs.device, generator=self.generator)

    def _order(self, shape: Sequence[int], obs: Tensor) -> Tensor | None:
        """Which member moves which trajectory at each step of rollouts [B M, K, H], drawn anew."""
        if not self._switches or (hypotheses := self._sizes[0]) == 1:
            return None
        robots, particles, horizon = shape
        each = (horizon, robots // hypotheses, hypotheses, particles)
        return torch.rand(each, device=obs.device, generator=self.generator).argsort(2)


def oracle_agent(
    planner: Planner,
    sequence: TaskSequence,
    task: int,
    robots: Sequence[Task],
    watch: bool = False,
) -> Agent:
    """An agent that plans for these robots with the simulator of task `task`, theirs or another.

    Raises:
        ValueError: a task that its simulator cannot roll out.
    """
    imagine = SimulatedRollout(robots, lambda: sequence.make(task), torch.get_num_threads())
    generator = torch.Generator(planner.low.device)
    reward, termination = robots[0].reward, robots[0].termination
    return Agent(planner, reward, len(robots), generator, imagine, termination, watch)


@cache
def _notice_eager_planning(reason: str) -> None:
    warnings.warn(f"planning without a CUDA graph, which is slower: {reason}", stacklevel=3)
