"""The acting half of the loop: robots of one task act, and what they live through is learned."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hypercrl.agent.agent import Agent
from hypercrl.agent.belief import Belief
from hypercrl.agent.exploration import Bursts, make_noise
from hypercrl.agent.task_labels import Ended
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.saved import same_kind, same_type
from hypercrl.training.experiment import Experiment
from hypercrl.training.learner import Learner
from hypercrl.training.robots import Robots
from hypercrl.training.tallies import Tallies
from hypercrl_envs import Fleet

SECONDS = torch.zeros(0, dtype=torch.float64)


class Actor:
    """N robots in one task of the sequence: one plan for all, simulators of a fleet.

    Args:
        experiment: the parts.
        fleet: makes the robots.
        task: of the sequence, from 0; its reward is planned for, also in what episodes are of the
            task before where `protocol.blur` mixes them in.
        learner: gets every transition.
        tallies: get the seconds.

    Attributes:
        agent: plans for the robots.
        explorer: plans for what its models disagree about, in bursts; None: these are random.
        belief: what it knows of them; None before the first plan.
        obs: [N, O], where they are.
        ended: episodes that the latest step has ended, to be begun anew.
    """

    def __init__(
        self, experiment: Experiment, fleet: Fleet, task: int, learner: Learner, tallies: Tallies
    ) -> None:
        config = experiment.config
        self.task = task
        self.experiment = experiment
        self.fleet = fleet
        self.learner = learner
        self.tallies = tallies
        self._exploration = f"exploration of task {task}"
        count = config.protocol.robots
        stream = experiment.streams.get(self._exploration)
        self._robots = Robots(fleet, task, count, config.protocol.blur > 0, stream)
        env = fleet.task(task)
        self.noise = make_noise(env, config.exploration, count, stream)
        self.bursts = Bursts(config.exploration, self.noise)
        self.agent = Agent(
            experiment.planner,
            env.reward,
            count,
            experiment.streams.get("planner", experiment.device),
            termination=env.termination,
            watch=config.planner.watch,
            value=experiment.value(task),
        )
        self.explorer = experiment.explorer(env, count)
        self.belief: Belief | None = None
        self.obs = torch.zeros(count, experiment.model.obs_size)
        self.returns = [0.0] * count
        self.lengths = [0] * count
        self.ended: list[Ended] = []

    def begin(self, lingering: float = 0.0) -> None:
        """The first episode of each robot.

        Args:
            lingering: probability that it is of the task before.
        """
        seed, count = self.experiment.config.seed, len(self._robots)
        seeds = [
            # The first robot's is that of a run with one.
            derive_seed(seed, "environment", self.task, *([robot] if robot else []))
            for robot in range(count)
        ]
        before = [derive_seed(seed, "before", self.task, robot) for robot in range(count)]
        with self.tallies.timed("environment"):
            begun = self._robots.begin([seeds, before][: self._robots.worlds], lingering)
        self._begin_episodes(range(count), begun)

    def act(self, planned: bool) -> None:
        """One environment step of each robot, with planned or with random actions."""
        exploration = self.experiment.config.exploration
        if planned:
            with self.tallies.timed("plan"):
                planned_actions = self.agent.begin_act(self.obs)
                noise = exploration.planned_std * self.noise.step()
                actions = self.bursts.act(planned_actions() + noise, self._explored())
        else:
            actions = self.noise.random_action(exploration.random_std)
        actions = actions.clamp(-1, 1)  # what is stored is what is executed
        with self.tallies.timed("environment"):
            results = self._robots.step(actions.numpy())
        next_obs = torch.from_numpy(np.stack([result[0] for result in results]))
        self.learner.add(self.obs, actions, next_obs)
        self.agent.observe(self.obs, actions, next_obs)
        self.obs = next_obs
        for robot, (_, reward, terminated, truncated, info) in enumerate(results):
            self.returns[robot] += float(reward)
            self.lengths[robot] += 1
            if terminated or truncated:
                paid, length = self.returns[robot], self.lengths[robot]
                success = bool(info["success"])
                self.ended.append(Ended(robot, paid, success, bool(terminated), length))

    def _explored(self) -> Tensor | None:
        """What robots in a burst do [N, A], where that is planned for; each burst's plans begin in
        the middle of the action range."""
        explorer, going = self.explorer, self.bursts.going
        if explorer is None or not going.any():
            return None
        fresh = self.bursts.fresh.nonzero()[:, 0].tolist()
        explorer.start[fresh] = explorer.planner.initial(len(fresh))
        return explorer.act(self.obs)

    def begin_anew(self, lingering: float = 0.0) -> None:
        """The next episode of the robots whose last one has ended, see `begin`."""
        robots = [episode.robot for episode in self.ended]
        self.ended = []
        if robots:
            with self.tallies.timed("environment"):
                begun = self._robots.begin_anew(robots, lingering)
            self._begin_episodes(robots, begun)

    def _begin_episodes(self, robots: Sequence[int], begun: Sequence[Any]) -> None:
        for robot, (obs, _) in zip(robots, begun, strict=True):
            self.obs[robot] = torch.from_numpy(obs)
            self.noise.reset(robot)
            self.bursts.reset(robot)
            self.learner.replay.begin_episode(robot)
            self.returns[robot], self.lengths[robot] = 0.0, 0
        self.agent.reset(robots)

    def inform(self, remembered: dict[str, Any] | None = None) -> None:
        """Let the agent plan with the present weights, and remember its episodes with them.

        Args:
            remembered: the belief's state, of a checkpoint.
        """
        self.collect_memory_seconds()
        labels = self.experiment.labels
        self.belief = labels.training_belief(self.task, len(self._robots))
        if remembered is not None:
            self.belief.load_state(remembered)
        elif self.belief.changes:
            self.belief.recall(self.learner.replay.present_episodes())
        self.agent.believe(self.belief)
        if self.explorer is not None:
            self.explorer.believe(self.belief)
            self.explorer.plan_seconds.clear()

    def collect_memory_seconds(self) -> None:
        """Put what the memory took to the tallies."""
        if self.belief is not None:
            self.tallies.memory_seconds.extend(self.belief.seconds)
            self.belief.seconds = []

    def end(self) -> None:
        """The task is over: what explored in it draws no more."""
        self.experiment.streams.drop(self._exploration)

    def close(self) -> None:
        """Let go of its robots.

        Raises:
            TaskFault: see `Fleet.dismiss`.
        """
        self._robots.close()
        self.fleet.forget(self.task)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; generators are kept elsewhere."""
        belief = {} if self.belief is None else {"belief": self.belief.state()}
        explorer = {} if self.explorer is None else {"explorer_start": self.explorer.start}
        return {
            **self._robots.state(),
            "noise": self.noise.state(),
            "bursts": self.bursts.state(),
            "obs": self.obs,
            "returns": self.returns,
            "lengths": self.lengths,
            "plan_start": self.agent.start,
            "plan_seconds": SECONDS.new_tensor(self.agent.plan_seconds),
            "searches": self.agent.searches,
            **belief,
            **explorer,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, in place of `begin`.

        Raises:
            KeyError, ValueError: it is not of such robots.
        """
        agent, count = self.agent, len(self._robots)
        self.returns = same_type("returns", state["returns"], list[float])
        self.lengths = same_type("lengths", state["lengths"], list[int])
        if not len(self.returns) == len(self.lengths) == count:
            raise ValueError(f"it is of {len(self.returns)} robots, not of {count}")
        self._robots.load_state(state)
        self.noise.load_state(state["noise"])
        self.bursts.load_state(state["bursts"])
        self.obs = same_kind("obs", state["obs"], self.obs)
        agent.start = same_kind("plan_start", state["plan_start"], agent.start)
        if self.explorer is not None:
            start = self.explorer.start
            self.explorer.start = same_kind("explorer_start", state["explorer_start"], start)
        agent.searches = same_type("searches", state["searches"], list[Tensor])
        seconds = same_kind("plan_seconds", state["plan_seconds"], SECONDS, rows=True)
        agent.plan_seconds = seconds.tolist()
        if "belief" in state:  # not before the first planned step
            self.inform(state["belief"])
        self._leave_what_cannot_be_restored()

    def _leave_what_cannot_be_restored(self) -> None:
        """Begin another episode where a simulator is not determined by its seed and actions.

        Else a transition would lead from where it was then to where it goes from here.
        """
        if lost := self._robots.elsewhere(self.obs):
            warnings.warn(
                "an episode cannot be gone on with, as its environment does not come to the same "
                "state by the same seed and actions: another one is begun",
                stacklevel=2,
            )
            self._begin_episodes(lost, self._robots.begin_anew(lost, 0.0))
