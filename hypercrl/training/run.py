"""A training run: begun in a new folder or resumed in its own, and brought to its result."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.progress import Progress
from hypercrl.base.settings import check
from hypercrl.config.schema import TrainConfig
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.runs.trackers import chosen
from hypercrl.training.experiment import Experiment, build, choose_device
from hypercrl.training.first_transitions import recorded_transitions
from hypercrl.training.oracle import measure_oracle
from hypercrl.training.result import program, summarise
from hypercrl.training.trainer import Trainer
from hypercrl_envs import TaskFault
from hypercrl_kernels import multiplies_bfloat16


@dataclass
class Run:
    """An experiment, its folder, and the name and state of the checkpoint to go on from; None: from
    the start."""

    experiment: Experiment
    folder: RunFolder
    checkpoint: tuple[str, dict[str, Any]] | None = None

    def finish(self, progress: Progress) -> dict[str, Any]:
        """Train to the end, or measure the oracle where there is nothing to train.

        Returns:
            What is in result.json now.

        Raises:
            Interrupted, UserError: see `Trainer.run`. Where a task failed it says how to go on.
        """
        program()  # asked now, as the run may be long
        try:
            result = self._measured(progress)
        except TaskFault as fault:
            raise UserError(
                f"{fault} Mend it, and go on from there with: {self.folder.goes_on_with}"
            ) from fault
        self.folder.write_result(result)
        return result

    def _measured(self, progress: Progress) -> dict[str, Any]:
        if self.experiment.plans_with_simulator:
            return measure_oracle(self.experiment, progress)
        trainer = Trainer(self.experiment, self.folder, progress)
        name, state = self.checkpoint or (LATEST, None)
        trainer.run(state, name)
        return summarise(trainer)


@contextmanager
def begun(config: DictConfig, path: Path) -> Iterator[Run]:
    """A run of this configuration in a new folder, locked against other writers.

    Raises:
        UserError: a setting that cannot be, or something is at `path` already.
    """
    with built(config) as experiment, RunFolder.create(path, config) as folder:
        yield Run(experiment, folder)


@contextmanager
def built(config: DictConfig) -> Iterator[Experiment]:
    """All of a new run but its folder, which is not made where something is refused.

    Raises:
        UserError, TaskFault: a setting that cannot be, or a task that does not do what it is to.
    """
    chosen(config.logger)
    _settle(config)
    settings = cast(TrainConfig, OmegaConf.to_object(config))
    with _in_threads(settings):
        experiment = build(settings)
        recorded_transitions(experiment, 0)
        yield experiment


@contextmanager
def resumed(
    path: Path, device: str | None = None, checkpoint: str | None = None, *, trust: bool = False
) -> Iterator[Run]:
    """A run to go on with, with as many threads, locked against other writers.

    Args:
        device: if not the one it was started on.
        checkpoint: name of the one to go on from; None: the newest sound one.
        trust: import code that the run names even where a stranger wrote it.

    Raises:
        UserError: there is no run, it has ended, another process goes on with it, there is no
            sound checkpoint, or it holds an agent alone.
    """
    with RunFolder.resume(path) as folder:
        config = folder.config(TrainConfig, trust=trust)
        if device is not None:
            config.device = device
        # A run killed before its first checkpoint starts again from its configuration.
        if checkpoint is None:
            saved = folder.newest_checkpoint()
        else:
            saved = checkpoint, folder.load_checkpoint(checkpoint)
        if saved is not None and "learner" not in saved[1]:
            raise UserError(
                f"{folder.path} holds an agent to play and load, not what training goes on from: "
                "resume the run that it was made of, or begin a new one."
            )
        with _in_threads(config, begun=True):
            yield Run(build(config, begun=True), folder, saved)


def _settle(config: DictConfig) -> None:
    """Write down what the machine decides, so that the run goes on alike on any other."""
    if config.threads is None:
        config.threads = torch.get_num_threads()
    on_cpu = choose_device(config.device).type == "cpu"
    if on_cpu and config.planner.precision is None and multiplies_bfloat16():
        config.planner.precision = "bf16"


@contextmanager
def _in_threads(config: TrainConfig, *, begun: bool = False) -> Iterator[None]:
    """Let torch use a run's threads, which the last digits of its sums depend on; None: its own."""
    check(config, begun=begun)
    before = torch.get_num_threads()
    torch.set_num_threads(config.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
