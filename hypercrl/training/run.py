"""A training run: begun in a new folder or resumed in its own, and brought to its result."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.progress import Progress
from hypercrl.config.schema import TrainConfig
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.runs.trackers import chosen
from hypercrl.training.experiment import Experiment, build
from hypercrl.training.first_transitions import recorded_transitions
from hypercrl.training.oracle import measure_oracle
from hypercrl.training.result import summarise
from hypercrl.training.trainer import Trainer


@dataclass
class Run:
    """An experiment, its folder, and the checkpoint to go on from; None: from the start."""

    experiment: Experiment
    folder: RunFolder
    checkpoint: dict[str, Any] | None = None

    def finish(self, progress: Progress) -> dict[str, Any]:
        """Train to the end, or measure the oracle where there is nothing to train.

        Returns:
            What is in result.json now.
        """
        if self.experiment.plans_with_simulator:
            result = measure_oracle(self.experiment, progress)
        else:
            trainer = Trainer(self.experiment, self.folder, progress)
            trainer.run(self.checkpoint)
            result = summarise(trainer)
        progress.finish()
        self.folder.write_result(result)
        return result


@contextmanager
def begun(config: DictConfig, path: Path) -> Iterator[Run]:
    """A run of this configuration in a new folder, locked against other writers.

    Raises:
        UserError: a setting that cannot be, or something is at `path` already.
    """
    chosen(config.logger)
    experiment = build(cast(TrainConfig, OmegaConf.to_object(config)))
    recorded_transitions(experiment, 0)  # what is refused, before there is a folder
    with RunFolder.create(path, config) as folder:
        yield Run(experiment, folder)


@contextmanager
def resumed(path: Path, device: str | None = None) -> Iterator[Run]:
    """A run to go on with, locked against other writers.

    Args:
        device: if not the one it was started on.

    Raises:
        UserError: there is no run, it has ended, or another process goes on with it.
    """
    with RunFolder.resume(path) as folder:
        if folder.result_path.exists():
            there = shlex.quote(str(folder.path))
            raise UserError(f"{folder.path} has ended; see it with: hypercrl report {there}")
        config = folder.config(TrainConfig)
        if device is not None:
            config.device = device
        # A run killed before its first checkpoint starts again from its configuration.
        there = LATEST in folder.checkpoints()
        checkpoint = folder.load_checkpoint(LATEST) if there else None
        yield Run(build(config), folder, checkpoint)
