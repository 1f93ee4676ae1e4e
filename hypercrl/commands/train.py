"""hypercrl train: run an experiment, or go on with one."""

from datetime import datetime
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hypercrl.config import TrainConfig
from hypercrl.errors import UserError
from hypercrl.experiment import build
from hypercrl.oracle import NAME, measure_oracle
from hypercrl.progress import Progress
from hypercrl.report import write_report
from hypercrl.result import summarise
from hypercrl.run_folder import LATEST, RunFolder
from hypercrl.trainer import Trainer

MAY_CHANGE_ON_RESUME = ("resume", "device")


def train(config: DictConfig) -> None:
    """Train what `config` describes into a run folder, and print the final table.

    With `planner.dynamics=simulator` there is nothing to train, and the oracle is measured.
    """
    console = Console()
    resumed: dict[str, Any] | None = None
    if config.resume is None:
        path = _run_dir(config.run_dir)
        typed = cast(TrainConfig, OmegaConf.to_object(config))
        experiment = build(typed)
        folder = RunFolder.create(path, config)
    else:
        _refuse_other_overrides()
        folder = RunFolder.open(Path(config.resume))
        if folder.result_path.exists():
            raise UserError(
                f"{folder.path} has ended already; see it with: hypercrl report {folder.path}"
            )
        typed = folder.config(TrainConfig)
        typed.device = config.device if _overridden("device") else typed.device
        experiment = build(typed)
        # A run killed before its first checkpoint starts again from its configuration.
        if LATEST in folder.checkpoints():
            resumed = folder.load_checkpoint(LATEST)
    oracle = experiment.plans_with_simulator
    console.print(
        f"[bold]{NAME if oracle else typed.method.name}[/] on [bold]{typed.env.name}[/] "
        f"({len(experiment.sequence)} tasks), preset {typed.preset}, seed {typed.seed}, "
        f"{experiment.device} → {folder.path}",
        highlight=False,
    )
    with Progress(console, len(experiment.sequence)) as progress:
        if oracle:
            result = measure_oracle(experiment, progress)
        else:
            trainer = Trainer(experiment, folder, progress)
            trainer.run(resumed)
            result = summarise(trainer)
        progress.finish()
    folder.write_result(result)
    write_report([folder.path], folder.path / "report", console)


def _run_dir(given: str | None) -> Path:
    """The folder asked for, or a dated one; a job of a multirun gets its number behind it."""
    now = datetime.now()
    path = Path(given) if given else Path("runs/train") / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}"
    hydra = HydraConfig.get()
    return path / str(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else path


def _overridden(key: str) -> bool:
    return any(o.split("=")[0].lstrip("+") == key for o in HydraConfig.get().overrides.task)


def _refuse_other_overrides() -> None:
    others = [
        o
        for o in HydraConfig.get().overrides.task
        if o.split("=")[0].lstrip("+") not in MAY_CHANGE_ON_RESUME
    ]
    if others:
        raise UserError(
            f"resume= goes on with the configuration the run was started with; leave out "
            f"{', '.join(others)} (only device= may be given beside it)."
        )
