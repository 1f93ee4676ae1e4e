"""hypercrl train: run an experiment, or go on with one."""

from contextlib import AbstractContextManager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.base.interrupts import continued_with
from hypercrl.base.progress import Progress
from hypercrl.config.overrides import keys_of
from hypercrl.report import write_report
from hypercrl.training.extended import extended
from hypercrl.training.oracle import NAME
from hypercrl.training.result import score
from hypercrl.training.run import Run, begun, built, resumed
from hypercrl_envs import TaskSequence

NAMED = 3
"""Tasks at most that a note has the names of."""

MAY_CHANGE_ON_RESUME = {"resume", "checkpoint", "device", "trust"}


def train(config: DictConfig) -> float:
    """Train what `config` describes into a run folder, and print the final table.

    With `planner.dynamics=simulator` there is nothing to train, and the oracle is measured.

    Returns:
        The score that a sweep maximises, see `hypercrl.training.result.score`.
    """
    console = Console(markup=False)
    if config.resume is None:
        new = _extended(config) if config.extend is not None else begun(config, _run_dir(config))
        with new as run:
            return _finish(run, console)
    _refuse_other_overrides()
    device = config.device if "device" in keys_of(HydraConfig.get().overrides.task) else None
    with resumed(Path(config.resume), device, config.checkpoint, trust=config.trust) as run:
        return _finish(run, console)


def try_out(config: DictConfig) -> None:
    """Raise what `train` would refuse before there is a run's folder.

    Raises:
        UserError, TaskFault: see `built`.
    """
    if config.resume is None and config.extend is None:
        with built(config):
            pass


def _finish(run: Run, console: Console) -> float:
    """Train to the result and the report; the score."""
    experiment, folder = run.experiment, run.folder
    config, tasks = experiment.config, len(experiment.sequence)
    name = NAME if experiment.plans_with_simulator else config.method.name
    about = f" ({counted(tasks, 'task')}), preset {config.preset}, seed {config.seed}, "
    names = (name, "bold"), " on ", (config.env.name, "bold")
    console.print(Text.assemble(*names, f"{about}{experiment.device} → {folder.path}"))
    if caution := experiment.method.caution(tasks):
        console.print(Text.assemble(("note", "yellow"), f"  {caution}"))
    if learned := learned_note(experiment.sequence):
        console.print(Text.assemble(("note", "yellow"), f"  {learned}"))
    with continued_with(folder.goes_on_with), Progress(console, tasks) as progress:
        result = run.finish(progress)
    page = write_report([folder.path], folder.path / "report", console)
    console.print(f"figures and page: {page}", highlight=False, soft_wrap=True)
    return score(result)


def learned_note(sequence: TaskSequence) -> str | None:
    """Which tasks have a reward or ends that the model learns; None: none has."""
    tasks: dict[tuple[str, ...], list[str]] = {}
    for caption, parts in zip(sequence.captions, sequence.learned, strict=True):
        if parts:
            tasks.setdefault(parts, []).append(caption)
    if not tasks:
        return None
    said = []
    for parts, captions in tasks.items():
        more = len(captions) - NAMED
        names = captions[:NAMED] + [f"{more} more"] * (more > 0)
        verb = "are" if len(parts) > 1 else "is"
        said.append(f"{' and '.join(parts)} of {', '.join(names)} {verb} learned")
    return (
        f"{'; '.join(said)}, from what the environment pays and does: give a task reward: and "
        "termination: where they are known"
    )


def _extended(config: DictConfig) -> AbstractContextManager[Run]:
    given = keys_of(HydraConfig.get().overrides.task)
    return extended(config, given, _run_dir(config))


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
            f"{', '.join(others)} (only device=, checkpoint= and trust= may be given beside it)."
        )
