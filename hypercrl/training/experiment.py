"""From a configuration to the parts of an experiment, for training and replaying alike."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any

import torch
from torch import nn

from hypercrl.agent.agent import Agent, oracle_agent
from hypercrl.agent.inferred_labels import InferredLabels
from hypercrl.agent.task_labels import GivenLabels, TaskLabels
from hypercrl.agent.value import Value
from hypercrl.base.device import choose_device
from hypercrl.base.errors import UserError
from hypercrl.base.random_streams import RandomStreams, derive_seed
from hypercrl.base.saved import same_type
from hypercrl.config.schema import TrainConfig, learned_tasks
from hypercrl.config.together import check_possible, check_sensible
from hypercrl.dynamics import DynamicsModel
from hypercrl.dynamics.conditioning import make_conditioning
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.memory import make_memory
from hypercrl.methods import Method, make_method
from hypercrl.planning import Planner, make_planner
from hypercrl.planning.disagreement import Disagreement
from hypercrl.training.evaluation import TASKS_AT_ONCE, Evaluator
from hypercrl.training.footprint import check_fits
from hypercrl.training.simulators import processes
from hypercrl.training.suited import check_heldout, check_simulators, check_windows
from hypercrl_envs import Fleet, LocalFleet, SpreadFleet, Task, TaskFault, TaskSequence

AGENT = ("method", "labels", "values")
"""Of a run's state what is the agent's; the last where something counts behind the end of plans."""


@dataclass
class Experiment:
    """The parts that a checkpoint's state fits into.

    Attributes:
        values: of each task of the sequence what counts behind a plan's end, 0 before it is
            learned; empty where nothing does.
    """

    config: TrainConfig
    device: torch.device
    sequence: TaskSequence
    streams: RandomStreams
    method: Method
    planner: Planner
    labels: TaskLabels
    values: list[Value] = field(default_factory=list)

    @property
    def plans_with_simulator(self) -> bool:
        """Whether it measures the oracle instead of a learned model."""
        return self.config.planner.dynamics == "simulator"

    @property
    def model(self) -> DynamicsModel:
        return self.method.model

    def begun_values(self) -> list[Value]:
        """Those of the tasks that have begun."""
        return self.values[: self.method.tasks]

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that is trained, of old and present tasks."""
        for module in (self.method, *self.begun_values()):
            yield from module.parameters()

    def agent_state(self) -> dict[str, Any]:
        """What the agent has learned, by the names of AGENT: the part of a run's state that it
        plays by."""
        state: dict[str, Any] = {"method": self.method.state(), "labels": self.labels.state()}
        if self.values:
            state["values"] = [dict(value.state_dict()) for value in self.begun_values()]
        return state

    def load_agent(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore what the agent has learned, from the state of a run; see `agent_state`.

        Raises:
            KeyError, RuntimeError, ValueError: the state does not fit.
        """
        tasks = same_type("tasks", checkpoint["method"]["tasks"], int)
        given = self.config.task_id == "given"
        most = len(self.sequence) if given else self.config.inference.max_tasks
        if not 0 <= tasks <= most:
            raise ValueError(f"an agent of {tasks} tasks")
        self.method.load_state(checkpoint["method"])
        self.labels.load_state(checkpoint["labels"])
        if self.values:
            for value, saved in zip(self.begun_values(), checkpoint["values"], strict=True):
                value.load_state(saved)

    def value(self, task: int) -> Value | None:
        """What counts behind the end of a plan in task `task` (from 0); None: nothing."""
        return self.values[task] if self.values else None

    def index(self, number: int) -> int:
        """From 0, of the task that people count as `number`, from 1.

        Raises:
            UserError: there is no such task.
        """
        count = len(self.sequence)
        if not (isinstance(number, Integral) and 1 <= number <= count):
            raise UserError(f"task={number!r}: this run has the tasks 1 to {count}.")
        return number - 1

    def untrained(self, task: int) -> str | None:
        """What to say where task `task` (from 0) is met with the model of another one."""
        given = self.config.task_id == "given" and not self.plans_with_simulator
        if not given or task < self.method.tasks:
            return None
        return f"playing it with the model of task {self.method.tasks}"

    def robot(self, task: int, render_mode: str | None = None, **picture: Any) -> Task:
        """A robot in task `task` (from 0), see `TaskSequence.make`.

        Raises:
            UserError: pictures that it cannot make.
            RenderingUnavailable: it can make none at all.
        """
        try:
            return self.sequence.make(task, render_mode, **picture)
        except ValueError as error:
            raise UserError(str(error)) from error

    def agent(
        self,
        task: int,
        env: Task,
        robots: int = 1,
        generator: torch.Generator | None = None,
        watch: bool = False,
    ) -> Agent:
        """Plans for so many robots with what has been learned.

        Args:
            task: number of the task, from 0; env: one robot in it.
            generator: of the planner's noise; by default a new one, to be seeded.
            watch: see `Agent`.
        """
        agent = Agent(
            self.planner,
            env.reward,
            robots,
            generator or torch.Generator(self.device),
            termination=env.termination,
            watch=watch,
            value=self.value(task),
        )
        agent.believe(self.labels.belief(task, robots))
        return agent

    def player(self, task: int, env: Task, seed: int, watch: bool = False) -> Agent:
        """Who plays: plans for one robot with what has been learned, or with its simulator.

        Args:
            task, env, watch: see `agent`.
            seed: of the planner's noise.
        """
        if self.plans_with_simulator:
            agent = oracle_agent(self.planner, self.sequence, task, [env], watch)
        else:
            agent = self.agent(task, env, watch=watch)
        agent.generator.manual_seed(seed)
        return agent

    def explorer(self, env: Task, robots: int) -> Agent | None:
        """Plans for what the members of the ensemble disagree about, with the planner's search;
        None where exploration is random.

        A trajectory is one member's, and without noise: what is drawn differs in any case.
        """
        config, model = self.config, self.model
        if config.exploration.kind == "random":
            return None
        plain = replace(config.planner, risk="mean", propagation="tsinf", sampled=False)
        planner = make_planner(plain, self.planner.low, self.planner.high)
        planner.standardise(*model.observation_scales())
        reward = Disagreement(model.target_normaliser.scale, self.method.members)
        generator = self.streams.get("explorer", self.device)
        return Agent(planner, reward, robots, generator, termination=env.termination)

    def fleet(self) -> Fleet:
        """Makes robots of the tasks, in as many processes as `simulators` says."""
        protocol = self.config.protocol
        tasks = min(len(self.sequence), TASKS_AT_ONCE)
        robots = max(protocol.robots, protocol.final_episodes * tasks)
        count = processes(self.config, self.device, robots)
        return LocalFleet(self.sequence) if count == 1 else SpreadFleet(self.sequence, count)

    def evaluator(self, planner: Planner | None = None, fleet: Fleet | None = None) -> Evaluator:
        """An evaluator of the tasks with this planner, or with the experiment's own.

        Args:
            fleet: makes its robots; by default they are of this process.
        """
        protocol = self.config.protocol
        planner = planner or self.planner
        planner.standardise(*self.method.model.observation_scales())
        return Evaluator(
            fleet or LocalFleet(self.sequence),
            planner,
            self.config.seed,
            self.config.exploration,
            protocol.prediction_horizon,
            protocol.heldout_episodes,
            protocol.heldout_from,
            self.value,
        )


def build(config: TrainConfig, *, begun: bool = False, trained: bool = False) -> Experiment:
    """Build all parts afresh from the config's seed.

    Args:
        config: of a run.
        begun: whether there is the run, which an older version may have begun: of settings that
            it took, and that would be refused of a new one, there is a warning.
        trained: whether it has a checkpoint, which is only looked at: then its method, if it is
            somebody else's, has been tried.

    Raises:
        UserError: a setting out of its limits, no such device, tasks that cannot be made or begun,
            functions of theirs that do not do what they are to, more memory needed than there is.
    """
    begun = begun or trained
    check_possible(config)
    _judge(begun, check_sensible, config)
    device = choose_device(config.device)
    streams = RandomStreams(config.seed)
    try:
        sequence = TaskSequence(learned_tasks(config), name=config.env.name, pad=config.env.pad)
        if config.planner.dynamics == "simulator":
            check_simulators(sequence)
        ones = torch.ones(sequence.action_size, device=device)
        planner = make_planner(config.planner, -ones, ones)
    except (ValueError, TaskFault) as error:
        raise UserError(str(error)) from error
    if config.planner.dynamics == "model":
        _judge(begun, check_heldout, config, sequence)
        if config.uses_context:
            _judge(begun, check_windows, config, sequence)
    check_fits(config, sequence.observation_size, sequence.action_size, device)
    model = _make_model(config, sequence, streams)
    generators = streams.get("parameters"), streams.get("method", device)
    method = make_method(model, config.method, *generators, tried=trained)
    planner.standardise(*method.model.observation_scales())
    labels = _make_labels(config, method)
    values = _make_values(config, sequence, device)
    return Experiment(config, device, sequence, streams, method, planner, labels, values)


def _judge(begun: bool, fits: Callable[..., None], *settings: Any) -> None:
    """Call what refuses settings; of a run that has begun, what it says is a warning."""
    try:
        fits(*settings)
    except UserError as error:
        if not begun:
            raise
        warnings.warn(f"a run of these settings would not be begun now: {error}", stacklevel=3)


def _make_values(config: TrainConfig, sequence: TaskSequence, device: torch.device) -> list[Value]:
    """One of each task, where there are to be any."""
    if config.value.kind == "none":
        return []
    generators = [
        torch.Generator().manual_seed(derive_seed(config.seed, "initial value", task))
        for task in range(len(sequence))
    ]
    return [Value(config.value, sequence.observation_size, g).to(device) for g in generators]


def _make_labels(config: TrainConfig, method: Method) -> TaskLabels:
    """The task's labels, given or inferred as `task_id` says."""
    if config.task_id == "given":
        return GivenLabels(method)
    if not method.one_layout:
        raise UserError(
            f"method={config.method.name} has networks of several sizes, among which no task can "
            "be inferred; use task_id=given or another method."
        )
    return InferredLabels(method, config.inference)


def _make_model(
    config: TrainConfig, sequence: TaskSequence, streams: RandomStreams
) -> DynamicsModel:
    """The dynamics model, with a memory if there is to be one."""
    obs_size, action_size = sequence.observation_size, sequence.action_size
    own = config.dynamics
    shared = (obs_size, action_size, own.hidden, own.probabilistic)
    context = config.context
    if not config.uses_context:
        return DynamicsModel(*shared, own.variance_weight)
    try:
        tokens = 2 * obs_size + action_size
        encoder = make_memory(config.memory, tokens, streams.get("memory"))
    except ValueError as error:
        raise UserError(str(error)) from error
    conditioning = make_conditioning(context.into, encoder.context_size, config.dynamics.hidden)
    return ContextModel(*shared, encoder, conditioning, context, own.variance_weight)
