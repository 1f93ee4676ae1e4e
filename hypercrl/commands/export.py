"""hypercrl export: what a run has learned or seen, in formats of others."""

from math import isnan
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.base.files import seen_to
from hypercrl.base.settings import check
from hypercrl.config.schema import ExportConfig
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run
from hypercrl_envs import Task, closed


def export(config: DictConfig) -> None:
    """Write one dataset or one model.

    Raises:
        UserError: settings that cannot be, a run that cannot be opened, or an `out` that is there
            or cannot be written to.
    """
    for key in ("run", "out"):
        if OmegaConf.is_missing(config, key):
            raise UserError(
                f"export needs {key}=: hypercrl export run=DIR task=1 format=minari out=NAME"
            )
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, ExportConfig)
    check(settings)
    out = Path(settings.out)
    if out.exists():
        raise UserError(f"{out} exists already and is left as it is; name another one.")
    with seen_to(out.parent, out):
        _export(settings, out)


def _export(settings: ExportConfig, out: Path) -> None:
    run, trust = Path(settings.run), settings.trust
    experiment = open_run(run, "cpu", settings.checkpoint, trust=trust)
    task = experiment.index(settings.task)
    console = Console(markup=False)
    if instead := experiment.untrained(task):
        console.print(f"task {task + 1} was not trained: {instead}", highlight=False)
    write = _dataset if settings.format == "minari" else _model
    env = experiment.robot(task)
    console.print(f"writing {out}, which may take minutes", highlight=False, soft_wrap=True)
    with closed(env):  # if that raises, what was asked for is there
        what = write(experiment, env, settings, out)
        console.print(f"{out}: {what}", highlight=False, soft_wrap=True)


def _dataset(experiment: Experiment, env: Task, settings: ExportConfig, out: Path) -> str:
    from hypercrl.replay.datasets import TASK, write_dataset
    from hypercrl.training.recorded import described, env_spec, from_replay, rolled_out

    task, config = settings.task - 1, experiment.config
    if settings.source == "replay":
        episodes = from_replay(Path(settings.run), experiment, task, env)
    else:
        episodes = rolled_out(experiment, task, env, settings.episodes, settings.seed)
    about = {
        "algorithm_name": f"hypercrl {config.method.name} {config.planner.name}",
        "description": f"{env.caption}: {settings.source} of task {settings.task}",
        TASK: described(experiment, task),
    }
    spaces = env.observation_space, env.action_space
    made_from = env_spec(experiment, task, env)
    write_dataset(out, episodes, *spaces, made_from, about)
    steps = sum(map(len, episodes))
    said = f"{counted(len(episodes), 'episode')} of {env.caption}, {counted(steps, 'step')}"
    if made_from is None:
        said += ", without what Minari's recover_environment needs"
    solved = sum(bool(episode.info["success"][-1]) for episode in episodes)
    if not solved and any(isnan(episode.info["goal_distance"][-1]) for episode in episodes):
        return said  # nothing says what solves it
    return f"{said}, {solved} solved at the end"


def _model(experiment: Experiment, env: Task, settings: ExportConfig, out: Path) -> str:
    from hypercrl.training.exported import export_act, export_dynamics

    suffix = {"torch_export": ".pt2", "onnx": ".onnx"}[settings.format]
    if out.suffix != suffix:
        raise UserError(f"out={out} must end in {suffix}.")
    write = export_act if settings.part == "act" else export_dynamics
    difference = write(experiment, settings.task - 1, env, out, settings.format)
    caption = experiment.sequence.captions[settings.task - 1]
    return f"{settings.part} of {caption}, within {difference:.1e} of the original"
