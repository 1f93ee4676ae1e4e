"""Settings that cannot be, each by itself or beside another: said before anything is built."""

from hypercrl.base.errors import UserError
from hypercrl.base.settings import check
from hypercrl.config.schema import TrainConfig, learned_tasks
from hypercrl.methods import METHODS, check_members
from hypercrl.methods.coreset import CoresetConfig
from hypercrl.planning import PLANNERS


def check_together(config: TrainConfig) -> None:
    """Check a new run's settings as far as that needs neither its tasks nor its model.

    Raises:
        UserError: names the setting and says what to give.
    """
    check_possible(config)
    check_sensible(config)


def check_possible(config: TrainConfig) -> None:
    """Check what no version of the program could run.

    Raises:
        UserError: see `check_together`.
    """
    check(config, begun=True)
    try:
        learned_tasks(config)
    except ValueError as error:
        raise UserError(str(error)) from error
    _check_robots(config)
    check_members(config.method)
    _check_imagination(config)
    if config.planner.sampled:
        _check_samples(config)
    _check_hypotheses(config)
    _check_exploration(config)
    _check_value(config)


def check_sensible(config: TrainConfig) -> None:
    """Check what older versions took, and a run that they have begun may have.

    Raises:
        UserError: see `check_together`.
    """
    check(config)
    _check_coreset(config)
    _check_doubt(config)


def _check_robots(config: TrainConfig) -> None:
    """Raise UserError where several robots cannot act at once."""
    protocol = config.protocol
    robots = protocol.robots
    if robots > 1 and config.task_id == "inferred":
        raise UserError(
            "protocol.robots > 1 needs task_id=given: a change of the task is inferred from the "
            "steps of one robot."
        )
    if protocol.replay_capacity < robots:
        raise UserError(
            f"protocol.replay_capacity={protocol.replay_capacity} has no room for a transition of "
            f"each of protocol.robots={robots}; give more."
        )
    for name in ("random_steps", "planned_steps"):
        if (steps := getattr(protocol, name)) % robots:
            raise UserError(
                f"protocol.robots={robots} robots act at once, so that protocol.{name} must be a "
                f"multiple of {robots}, not {steps}; give {steps - steps % robots + robots}, or "
                "other robots."
            )


def _check_coreset(config: TrainConfig) -> None:
    """Raise UserError where a task would be left without a single transition to rehearse."""
    own = config.method
    if not isinstance(own, CoresetConfig) or own.capacity is None or own.equal_bytes:
        return
    inferred = config.task_id == "inferred"
    tasks = config.inference.max_tasks if inferred else len(learned_tasks(config))
    if own.capacity >= tasks:
        return
    fewer = f", or inference.max_tasks={own.capacity}" if inferred else ""
    raise UserError(
        f"method.capacity={own.capacity} has no room for a transition of each of {tasks} "
        f"tasks{' that may be inferred' if inferred else ''}; give {tasks} or more, or null for no "
        f"limit{fewer}."
    )


def _check_imagination(config: TrainConfig) -> None:
    """Raise UserError where a planner cannot be asked what a simulator imagines."""
    planner = config.planner
    if planner.dynamics == "simulator" and PLANNERS[planner.name][0].follows:
        raise UserError(
            f"planner={planner.name} imagines with the learned model alone: use "
            "planner.dynamics=model, or another planner."
        )


def _check_samples(config: TrainConfig) -> None:
    """Raise UserError where there is no variance to sample the next state with."""
    if config.planner.dynamics == "simulator":
        raise UserError(
            "planner.sampled=true needs planner.dynamics=model: a simulator has no variance."
        )
    if config.task_id == "inferred":
        raise UserError(
            "planner.sampled=true needs task_id=given: inferred tasks are planned for with their "
            "mean predictions."
        )
    if not METHODS[config.method.name][0].learns_variance:
        raise UserError(
            f"planner.sampled=true needs a log-variance, and method={config.method.name} predicts "
            "none; use planner.sampled=false, or another method."
        )
    if not config.dynamics.probabilistic:
        raise UserError(
            "planner.sampled=true needs dynamics.probabilistic=true: only a model with a "
            "log-variance can be sampled from."
        )


def _check_hypotheses(config: TrainConfig) -> None:
    """Raise UserError where there is nothing to be averse to, or to switch between."""
    learned, members = config.planner.dynamics == "model", config.method.members
    inferred = config.task_id == "inferred"
    if config.planner.propagation == "ts1" and (not learned or members == 1 or inferred):
        raise UserError(
            "planner.propagation=ts1 needs an ensemble, method.members=5 say, with "
            "planner.dynamics=model and task_id=given: trajectories switch between its members."
        )
    several = members > 1 or inferred
    if config.planner.risk != "mean" and not (learned and several):
        raise UserError(
            f"planner.risk={config.planner.risk} needs planner.dynamics=model and an ensemble, "
            "method.members=5 say, or task_id=inferred: it is over what several models say."
        )


def _check_exploration(config: TrainConfig) -> None:
    """Raise UserError where bursts cannot be planned for what an ensemble disagrees about."""
    if config.exploration.kind == "random":
        return
    if config.method.members == 1 or config.planner.dynamics == "simulator":
        raise UserError(
            "exploration.kind=disagreement needs an ensemble, method.members=5 say, with "
            "planner.dynamics=model: it goes where its members predict different things."
        )
    if config.task_id == "inferred":
        raise UserError(
            "exploration.kind=disagreement needs task_id=given: it goes where models err, by which "
            "inference would tell that the task has changed."
        )
    if not config.exploration.burst_share:
        raise UserError(
            "exploration.kind=disagreement is how bursts explore, and there are none: give "
            "exploration.burst_share=0.3, say."
        )


def _check_value(config: TrainConfig) -> None:
    """Raise UserError where the value of a state cannot be learned, or is not one of the state."""
    if config.value.kind == "none":
        return
    if config.planner.dynamics == "simulator":
        raise UserError(
            "value.kind=td needs planner.dynamics=model: with a simulator's dynamics nothing is "
            "learned."
        )
    if config.task_id == "inferred":
        raise UserError(
            "value.kind=td needs task_id=given: rewards are a task's own, and so is their value."
        )
    if config.uses_context:
        raise UserError(
            "value.kind=td needs memory=none and context.always=false: it is a value of what is "
            "observed, and with a memory the last state of a plan is not all that is known."
        )


def _check_doubt(config: TrainConfig) -> None:
    """Raise UserError where every doubt would take the whole replay away."""
    capacity, patience = config.protocol.replay_capacity, config.inference.patience
    if config.task_id == "given" or capacity > patience + 1:
        return
    raise UserError(
        f"protocol.replay_capacity={capacity} with inference.patience={patience}: a doubt is of "
        f"{patience + 1} steps at least, which are forgotten, and nothing would be left of the "
        f"task before. Give protocol.replay_capacity={patience + 2} or more; it should hold a task."
    )
