"""hypercrl train: run an experiment, or go on with one."""

from collections.abc import Iterable, Set
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
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.extended import extended, with_changes
from hypercrl.training.oracle import NAME
from hypercrl.training.repeated import check_same, is_begun, score_of
from hypercrl.training.result import score
from hypercrl.training.run import Run, begun, built, resumed
from hypercrl_envs import TaskSequence

NAMED = 3
"""Tasks at most that a note has the names of."""

MAY_CHANGE_ON_RESUME = {"resume", "checkpoint", "device", "trust"}


def train(config: DictConfig) -> float:
    """Train what `config` describes into a run folder, and print the final table.

    With `planner.dynamics=simulator` there is nothing to train, and the oracle is measured. A job
    of a multirun whose run is there from an earlier call goes on with it, or reads its score.

    Returns:
        The score that a sweep maximises, see `hypercrl.training.result.score`.
    """
    console = Console(markup=False)
    hydra = HydraConfig.get()
    given = keys_of(hydra.overrides.task)
    if config.resume is not None:
        _refuse_other_overrides()
        return _resume(Path(config.resume), config, given, console)
    path = _run_dir(config)
    if hydra.mode == RunMode.MULTIRUN and is_begun(path):
        return _repeat(path, config, given, console)
    new = begun(config, path) if config.extend is None else extended(config, given, path)
    with new as run:
        return _finish(run, console)


def check_job(config: DictConfig, words: Iterable[str], number: int) -> None:
    """Raise what a job of a multirun would be refused for because of the run in its folder.

    Args:
        words: the job's, KEY=VALUE.
        number: the job's, which its folder is called by.

    Raises:
        UserError: see `check_same`.
    """
    path = Path(config.run_dir or "", str(number))
    if config.resume is None and is_begun(path):
        check_same(_wanted(config, keys_of(words)), path)


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


def _resume(path: Path, config: DictConfig, given: Set[str], console: Console) -> float:
    device = config.device if "device" in given else None
    with resumed(path, device, config.checkpoint, trust=config.trust) as run:
        return _finish(run, console)


def _repeat(path: Path, config: DictConfig, given: Set[str], console: Console) -> float:
    """What an earlier call of the same multirun came to, or goes on to; the score."""
    check_same(_wanted(config, given), path)
    folder = RunFolder(path)
    if not folder.ended:
        return _resume(path, config, given, console)
    reached = score_of(folder)
    console.print(f"{path} has ended already, with score {reached:.4g}", highlight=False)
    return reached


def _wanted(config: DictConfig, given: Set[str]) -> DictConfig:
    """The settings of the run that is asked for."""
    return config if config.extend is None else with_changes(config, given)[2]


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
