"""Recorded episodes that a task begins with, see `ReplayConfig`."""

import warnings
from typing import Any

from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.replay.datasets import read_dataset, recorded_of
from hypercrl.replay.transitions import Batch
from hypercrl.training.experiment import Experiment
from hypercrl.training.recorded import described
from hypercrl_envs import closed


def recorded_transitions(experiment: Experiment, first: int) -> dict[int, list[Batch]]:
    """The episodes of each task from number `first` (from 0) on that has a dataset.

    One that was exported of another task, or of one with other parameters, is warned of.

    Raises:
        UserError: a dataset that cannot be read or does not fit, more of them than tasks, or a run
            that is not told where a task begins, or learns nothing.
    """
    config, sequence = experiment.config, experiment.sequence
    datasets = config.replay.datasets
    if not any(datasets):
        return {}
    if config.task_id != "given" or experiment.plans_with_simulator:
        raise UserError(
            "replay.datasets are of a task, and need task_id=given and planner.dynamics=model."
        )
    if config.protocol.robots > 1:
        raise UserError(
            "replay.datasets are of one robot: use protocol.robots=1, or random steps instead."
        )
    if len(datasets) > len(sequence):
        whole = len(config.env.tasks)
        least = f", of {whole} in {sequence.name} (protocol.num_tasks)" * (whole > len(sequence))
        raise UserError(
            f"replay.datasets names {len(datasets)}, but this run learns "
            f"{counted(len(sequence), 'task')}{least}. Give one for each task in order, or null; "
            "tasks behind the last one have none."
        )
    sizes = sequence.observation_size, sequence.action_size
    found = {}
    for task, path in enumerate(datasets):
        if path is not None and task >= first:
            if said := _of_another(recorded_of(path), described(experiment, task)):
                warnings.warn(f"task {task + 1} begins with {path}, {said}", stacklevel=1)
            own = sequence.make(task)
            with closed(own):
                found[task] = read_dataset(path, *sizes, own.observed)
    return found


def _of_another(theirs: dict[str, Any] | None, own: dict[str, Any]) -> str:
    """How the task that a dataset says it is of differs; empty where it does not, or says none."""
    if theirs is None:
        return ""
    keys = [key for key in {**theirs, **own} if key != "sequence"]
    differ = [key for key in keys if theirs.get(key) != own.get(key)]
    if not differ:
        return ""
    told = ["task"] if "task" in differ else differ
    has, wants = (", ".join(f"{key}={each.get(key)}" for key in told) for each in (theirs, own))
    return f"which was exported of {has} ({theirs.get('sequence')}) and not of {wants}"
