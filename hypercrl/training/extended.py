"""A finished run that learns further tasks, in a new folder."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.base.saved import same_type
from hypercrl.config.messages import check_tasks
from hypercrl.config.overrides import in_shell
from hypercrl.config.schema import TrainConfig, learned_tasks
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.run import Run, agent_alone, built
from hypercrl.training.tallies import Tallies
from hypercrl_envs import TaskFault, TaskSequence

MAY_CHANGE = (
    *("env", "protocol.num_tasks", "protocol.order", "inference.max_tasks"),
    *("device", "logger", "simulators"),
)
"""Settings that may be given beside `extend=`; all others are those of the finished run."""
BESIDE = {*MAY_CHANGE, "extend", "run_dir", "trust"}


@contextmanager
def extended(config: DictConfig, given: Set[str], path: Path) -> Iterator[Run]:
    """A run in a new folder that goes on where a finished one ended, with further tasks.

    It is trained bit for bit as one that had all of these tasks from the start. What that one would
    have measured of the further tasks before they were learned is NaN, as nobody did.

    Args:
        config: of `hypercrl train`; its `extend` is the folder of the finished run, which stays as
            it is.
        given: the settings of it that were given, which count; the others are the finished run's.
        path: the new folder.

    Raises:
        UserError: there is no such run, it has not ended or has no agent to go on with, other
            settings are given, its tasks are not the first ones of the new run, or something is at
            `path` already.
    """
    finished, old, new = with_changes(config, given)
    check_tasks(new, given)
    learned = _further_tasks(finished, old, new)
    last = finished.load_checkpoint(LATEST)
    if "learner" not in last:
        raise agent_alone(finished)
    with finished.foreign_state_refused(LATEST):
        length = same_type("log_bytes", last["log_bytes"], int)
    records = finished.metrics_path.read_bytes()[:length]
    with built(new) as experiment:
        _check_sizes(finished, old, experiment.sequence)
        count = len(experiment.sequence)
        last = _widened(finished, LATEST, last, count)
        with RunFolder.create(path, new) as folder:
            with folder.written():
                write_atomically(folder.metrics_path, records)
            for name in (f"after_task_{number}" for number in range(1, learned)):
                if finished.checkpoint_path(name).is_file():
                    tree = finished.load_checkpoint(name)
                    folder.save_checkpoint(name, _widened(finished, name, tree, count))
            folder.save_checkpoint(name := f"after_task_{learned}", last)
            folder.make_latest(name, keep=True)
            yield Run(experiment, folder, (LATEST, last))


def with_changes(config: DictConfig, given: Set[str]) -> tuple[RunFolder, TrainConfig, DictConfig]:
    """The finished run, its settings, and those with the given ones in their places.

    Args:
        config, given: as of `extended`.

    Raises:
        UserError: there is no such run, it has not ended, or other settings are given.
    """
    within = {key.rpartition(".")[0] for key in given}  # of `a={b: 1}` it is a.b that is given
    others = sorted(given - BESIDE - within)
    if others:
        raise UserError(
            "extend= goes on with the configuration of the finished run; leave out "
            f"{', '.join(f'{key}=' for key in others)} (beside it may be given "
            f"{', '.join(f'{key}=' for key in sorted(BESIDE - {'extend'}))})."
        )
    finished = RunFolder.open(Path(config.extend))
    old = finished.config(TrainConfig, trust=config.trust)
    if old.planner.dynamics == "simulator":
        raise UserError(
            f"{finished.path} measured an oracle, which learns nothing: no agent is there."
        )
    if not finished.ended:
        raise UserError(
            f"{finished.path} has not ended; go on with it first: {finished.goes_on_with}"
        )
    new = OmegaConf.structured(old)
    new.extend = config.extend
    for key in MAY_CHANGE:
        if key in given:
            OmegaConf.update(new, key, OmegaConf.select(config, key), merge=False)
    return finished, old, new


def _further_tasks(finished: RunFolder, old: TrainConfig, new: DictConfig) -> int:
    """How many tasks the finished run has learned.

    Raises:
        UserError: the new one has no further ones behind these.
    """
    try:
        before, now = learned_tasks(old), learned_tasks(cast(TrainConfig, OmegaConf.to_object(new)))
    except ValueError as error:
        raise UserError(str(error)) from error
    count = len(before)
    if now[:count] != before:
        raise UserError(
            f"{finished.path} has learned other tasks than the first {count} of these: to go on "
            f"with its agent begin with the same ones, in the order of {finished.path}/config.yaml."
        )
    if len(now) == count:
        all_of_them = len(new.env.tasks) == count
        more = "env=, a longer sequence" if all_of_them else f"protocol.num_tasks={count + 1}"
        raise UserError(
            f"{finished.path} has learned {counted(count, 'task')} already, and no further one is "
            f"given: give {more}{'' if all_of_them else ' or more'}, beside "
            f"{in_shell('extend', finished.path)}."
        )
    return count


def _check_sizes(finished: RunFolder, old: TrainConfig, sequence: TaskSequence) -> None:
    """Raise UserError where the further tasks change the sizes of the networks."""
    try:
        before = TaskSequence(learned_tasks(old), name=old.env.name, pad=old.env.pad)
    except (ValueError, TaskFault) as error:
        raise UserError(str(error)) from error
    sizes = before.observation_size, before.action_size
    if sizes != (now := (sequence.observation_size, sequence.action_size)):
        raise UserError(
            f"The tasks of {finished.path} have {sizes[0]} observations and {sizes[1]} actions; "
            f"with the further ones it is {now[0]} and {now[1]}, and its networks do not fit. "
            "Begin a new run."
        )


def _widened(finished: RunFolder, name: str, tree: dict[str, Any], tasks: int) -> dict[str, Any]:
    """A checkpoint's state, with matrices of so many tasks."""
    with finished.foreign_state_refused(name):
        tallies = Tallies()
        tallies.load_state(tree["tallies"])
        tallies.widen(tasks)
    return {**tree, "tallies": tallies.state()}
