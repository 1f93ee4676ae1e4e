"""hypercrl train: run an experiment, or go on with one."""

import shlex
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape

from hypercrl.base.errors import UserError
from hypercrl.base.interrupts import continued_with
from hypercrl.base.progress import Progress
from hypercrl.config.overrides import in_shell, keys_of
from hypercrl.config.schema import TrainConfig
from hypercrl.report import write_report
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.runs.trackers import chosen
from hypercrl.training.experiment import Experiment, build
from hypercrl.training.oracle import NAME, measure_oracle
from hypercrl.training.result import summarise
from hypercrl.training.trainer import Trainer

MAY_CHANGE_ON_RESUME = {"resume", "device"}


def train(config: DictConfig) -> float:
    """Train what `config` describes into a run folder, and print the final table.

    With `planner.dynamics=simulator` there is nothing to train, and the oracle is measured.

    Returns:
        The score that a sweep maximises: success at the end, the mean over all tasks, in [0, 1].
    """
    console = Console()
    if config.resume is None:
        path = _run_dir(config)
        chosen(config.logger)
        experiment = build(cast(TrainConfig, OmegaConf.to_object(config)))
        with RunFolder.create(path, config) as folder:
            return _run(experiment, folder, None, console)
    _refuse_other_overrides()
    with RunFolder.resume(Path(config.resume)) as folder:
        if folder.result_path.exists():
            there = shlex.quote(str(folder.path))
            raise UserError(f"{folder.path} has ended; see it with: hypercrl report {there}")
        stored = folder.config(TrainConfig)
        if "device" in keys_of(HydraConfig.get().overrides.task):
            stored.device = config.device
        experiment = build(stored)
        # A run killed before its first checkpoint starts again from its configuration.
        there = LATEST in folder.checkpoints()
        return _run(experiment, folder, folder.load_checkpoint(LATEST) if there else None, console)


def _run(
    experiment: Experiment, folder: RunFolder, resumed: dict[str, Any] | None, console: Console
) -> float:
    """Train from the start, or from the state of a checkpoint, to the result and the report."""
    config, tasks = experiment.config, len(experiment.sequence)
    oracle = experiment.plans_with_simulator
    console.print(
        f"[bold]{NAME if oracle else config.method.name}[/] on [bold]{config.env.name}[/] "
        f"({tasks} tasks), preset {config.preset}, seed {config.seed}, "
        f"{experiment.device} → {escape(str(folder.path))}",
        highlight=False,
    )
    again = f"hypercrl train {in_shell('resume', folder.path)}"
    with continued_with(again), Progress(console, tasks) as progress:
        if oracle:
            result = measure_oracle(experiment, progress)
        else:
            trainer = Trainer(experiment, folder, progress)
            trainer.run(resumed)
            result = summarise(trainer)
        progress.finish()
        folder.write_result(result)
    page = write_report([folder.path], folder.path / "report", console)
    console.print(f"figures and page: {page}", markup=False, highlight=False, soft_wrap=True)
    return result["success_average_performance"]


def _run_dir(config: DictConfig) -> Path:
    """The folder asked for; a job of a multirun gets its number behind it."""
    if not config.run_dir:
        raise UserError("run_dir= is a folder; left out, it is a dated one under runs/train.")
    hydra = HydraConfig.get()
    path = Path(config.run_dir)
    return path / str(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else path


def _refuse_other_overrides() -> None:
    given = HydraConfig.get().overrides.task
    others = [o for o in given if not keys_of([o]) <= MAY_CHANGE_ON_RESUME]
    if others:
        raise UserError(
            f"resume= goes on with the configuration the run was started with; leave out "
            f"{', '.join(others)} (only device= may be given beside it)."
        )
