"""Recorded episodes that a task begins with, see `ReplayConfig`."""

from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.replay.datasets import read_dataset
from hypercrl.replay.transitions import Batch
from hypercrl.training.experiment import Experiment
from hypercrl_envs import closed


def recorded_transitions(experiment: Experiment, first: int) -> dict[int, list[Batch]]:
    """The episodes of each task from number `first` (from 0) on that has a dataset.

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
        raise UserError(
            f"replay.datasets names {len(datasets)}, but the sequence has "
            f"{counted(len(sequence), 'task')}; give one for each task in order, or null."
        )
    sizes = sequence.observation_size, sequence.action_size
    found = {}
    for task, path in enumerate(datasets):
        if path is not None and task >= first:
            own = sequence.make(task)
            with closed(own):
                found[task] = read_dataset(path, *sizes, own.observed)
    return found
