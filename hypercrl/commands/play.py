"""hypercrl play: replay a trained agent on one task, or on all of them, to mp4."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import chain, count
from math import ceil, isnan
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from hypercrl.agent.agent import Agent
from hypercrl.agent.realtime import Pacer, latency_report
from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError
from hypercrl.base.files import seen_to
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.settings import check
from hypercrl.config.overrides import keys_of
from hypercrl.config.schema import PlayConfig
from hypercrl.planning.search import medians
from hypercrl.runs.demos import find_run, is_demo
from hypercrl.runs.video import VideoWriter, caption, framed, headed, tile
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run
from hypercrl_envs import RenderingUnavailable, Task, TaskFault, close
from hypercrl_envs.checked import calls_into
from hypercrl_envs.rendering import as_picture, fitted


def play(config: DictConfig) -> None:
    """Run episodes with a checkpoint's model, and write them to a video if asked.

    Raises:
        UserError: settings that cannot be, a run that cannot be opened, pictures that cannot be
            drawn, or a video that cannot be written where it is to be.
    """
    settings = _settings(config)
    video = Path(settings.video) if settings.video else None
    with nullcontext() if video is None else seen_to(video.parent, video):
        _play(settings, video)


def _play(settings: PlayConfig, video: Path | None) -> None:
    experiment = open_run(
        Path(settings.run), settings.device, settings.checkpoint, trust=settings.trust
    )
    tasks = _tasks(experiment, settings)
    console = Console(markup=False)
    for task in tasks:
        if instead := experiment.untrained(task):
            where = f"was not trained in checkpoint {settings.checkpoint!r}"
            line = f"task {task + 1} {where}: {instead}"
            console.print(line, highlight=False, soft_wrap=True)
    if video is None:
        stages = [_stage(experiment, settings, task) for task in tasks]
        _run_episodes(stages, settings, None, console)
    else:
        with _pictures():
            stages = [_stage(experiment, settings, task) for task in tasks]
            for stage in stages:
                stage.try_picture()
            with VideoWriter(video, _frame_rate(stages)) as writer:
                _run_episodes(stages, settings, writer, console)
        console.print(f"video: {video}", highlight=False, soft_wrap=True)
    close(*(stage.env for stage in stages))  # if that raises, the video is there


@contextmanager
def _pictures() -> Iterator[None]:
    """Around what draws.

    Raises:
        UserError: it cannot be drawn; says how to play all the same.
    """
    try:
        yield
    except RenderingUnavailable as error:
        raise UserError(
            f"no video was written: {error}. To play without pictures: video=null"
        ) from error


def _tasks(experiment: Experiment, settings: PlayConfig) -> Sequence[int]:
    """Those to play, from 0.

    Raises:
        UserError: there is no such task, none is left, or one is named twice.
    """
    if not settings.tiled:
        return [experiment.index(settings.task)]
    if settings.tasks is None:
        return range(len(experiment.sequence))
    if not settings.tasks or len(set(settings.tasks)) < len(settings.tasks):
        raise UserError(f"tasks={settings.tasks} is to name one task at least, and none twice.")
    return [experiment.index(number) for number in settings.tasks]


def _settings(config: DictConfig) -> PlayConfig:
    """What was asked for, of a demo with what it is shown by; refused where it cannot be."""
    if OmegaConf.is_missing(config, "run"):
        raise UserError("play needs a run: hypercrl play run=DIR task=1 video=out.mp4")
    settings = cast(PlayConfig, OmegaConf.to_object(config))
    check(settings)
    given = keys_of(HydraConfig.get().overrides.task)
    if settings.tiled and "task" in given:
        raise UserError("tiled=true shows all tasks and task= one of them: leave one of these out.")
    if is_demo(find_run(Path(settings.run))):
        _show(settings, given)
    if "tasks" in given and not settings.tiled:
        raise UserError(
            "tasks= is of tasks side by side: give tiled=true beside it, or leave it out."
        )
    drawn = sorted(given & {"camera", "size", "title"})
    if not settings.video:
        if drawn:
            raise UserError(
                f"{drawn[0]}= is of the pictures of a video, and none is drawn: give "
                "video=out.mp4 beside it, or leave it out."
            )
    elif Path(settings.video).exists():
        raise UserError(
            f"{settings.video} exists already and is left as it is; name another video."
        )
    elif Path(settings.video).suffix != ".mp4":
        raise UserError(f"video={settings.video} must end in .mp4.")
    return settings


def _show(settings: PlayConfig, given: set[str]) -> None:
    """Play a demo at its best where nothing else was asked for: all of it, once, to a new video."""
    if "episodes" not in given:
        settings.episodes = 1
    if not given & {"tiled", "task"}:
        settings.tiled = True
    if "video" not in given:
        ends = chain([""], (f"_{number}" for number in count(2)))
        names = (f"{settings.run}{end}.mp4" for end in ends)
        settings.video = next(name for name in names if not Path(name).exists())


@dataclass
class _Stage:
    """One task, the agent that plays it, and how the present episode stands."""

    env: Task
    agent: Agent
    label: str
    short: str
    obs: np.ndarray = field(init=False)
    info: dict[str, Any] = field(init=False)
    total: float = 0.0
    steps: int = 0
    over: bool = False

    @property
    def seconds(self) -> float:
        """Length of an episode in simulated time."""
        return self.env.max_episode_steps / self.env.control_rate

    def try_picture(self) -> None:
        """Draw before anything is played.

        Raises:
            RenderingUnavailable: there is no picture.
        """
        self.env.reset(seed=0)
        _drawn(self.env)

    def warm_up(self) -> None:
        obs, _ = self.env.reset(seed=0)
        self.agent.warm_up(torch.from_numpy(obs)[None])

    def reset(self, seed: int) -> None:
        self.obs, self.info = self.env.reset(seed=seed)
        self.agent.reset()
        self.total = 0.0
        self.steps = 0
        self.over = False

    def advance(self, seconds: float) -> None:
        """Step while that time of the episode has not come yet; after its end, wait."""
        while not self.over and self._next_time <= seconds + 1e-9:
            self._step()

    @property
    def _next_time(self) -> float:
        return (self.steps + 1) / self.env.control_rate

    def _step(self) -> None:
        obs = torch.from_numpy(self.obs)[None]
        action = self.agent.act(obs)
        self.obs, reward, terminated, truncated, self.info = self.env.step(action[0].numpy())
        self.over = terminated or truncated
        self.agent.observe(obs, action, torch.from_numpy(self.obs)[None])
        self.total += float(reward)
        self.steps += 1

    def picture(self, episode: int) -> np.ndarray:
        """Of this moment: framed where the task is solved, with as much beside it as it has room
        for."""
        success = ", success" if self.info["success"] else ""
        text = f"{self.label}, episode {episode + 1}, step {self.steps}{success}"
        frame = _drawn(self.env)
        # The edge first, which is wider than the room above the words.
        return caption(framed(frame) if self.info["success"] else frame, text, self.short)

    def outcome(self) -> str:
        distance, success = self.info["goal_distance"], self.info["success"]
        said = f"return {self.total:z.1f} in {counted(self.steps, 'step')}"
        if isnan(distance):  # the task does not say how far its goal is, nor what fails to reach it
            return f"{said}, success" if success else said
        unit = f" {self.env.goal_unit}".rstrip()
        return f"{said}, {'' if success else 'no '}success, {distance:.3g}{unit} from the goal"


def _drawn(env: Task) -> np.ndarray:
    """The task's picture, uint8 of the size that was asked for.

    Raises:
        RenderingUnavailable: there is none, whatever `render` raised.
    """
    try:
        with calls_into(f"{env.caption}, render"):
            picture = env.render()
    except TaskFault as error:
        raise RenderingUnavailable(str(error).rstrip(".")) from error
    return fitted(as_picture(picture, env.caption), env.height, env.width)


def _stage(experiment: Experiment, settings: PlayConfig, task: int) -> _Stage:
    picture = {"width": settings.size, "height": settings.size}
    picture |= {} if settings.camera is None else {"camera": settings.camera}
    env = experiment.robot(task, "rgb_array" if settings.video else None, **picture)
    agent = experiment.player(task, env, settings.seed, settings.watch)
    label = f"task {task + 1}/{len(experiment.sequence)}: {env.caption}"
    return _Stage(env, agent, label, f"{task + 1}")


def _frame_rate(stages: Sequence[_Stage]) -> float:
    """Pictures a second: one for each step of the fastest task, so that the video is real time."""
    return max(stage.env.control_rate for stage in stages)


def _run_episodes(
    stages: Sequence[_Stage], settings: PlayConfig, writer: VideoWriter | None, console: Console
) -> None:
    rate = _frame_rate(stages)
    frames = ceil(rate * max(stage.seconds for stage in stages) - 1e-9)
    pacer = Pacer(rate) if settings.realtime else None
    if settings.realtime:
        for stage in stages:
            stage.warm_up()
    for episode in range(settings.episodes):
        for stage in stages:
            stage.reset(derive_seed(settings.seed, "play", episode))
        for frame in range(1, frames + 1):
            if pacer is not None:
                pacer.wait()
            for stage in stages:
                stage.advance(frame / rate)
            if writer is not None:
                writer.add(_picture(stages, episode, settings.title))
            if all(stage.over for stage in stages):
                break
        for stage in stages:
            line = f"{stage.label}, episode {episode + 1}: {stage.outcome()}"
            console.print(line, highlight=False, soft_wrap=True)
    for stage in stages:
        if settings.realtime:
            latencies = latency_report(stage.agent.plan_seconds)
            console.print(f"{stage.label}: {latencies}", highlight=False, soft_wrap=True)
        if settings.watch:
            console.print(
                f"{stage.label}: {search_report(stage.agent.searches)}",
                highlight=False,
                soft_wrap=True,
            )


def _picture(stages: Sequence[_Stage], episode: int, title: str | None) -> np.ndarray:
    """All tasks side by side, and above them the title with the number of those that are solved."""
    tiles = tile([stage.picture(episode) for stage in stages])
    if title is None:
        return tiles
    solved = sum(bool(stage.info["success"]) for stage in stages)
    return headed(tiles, title, solved, len(stages))


def search_report(searches: Sequence[Tensor]) -> str:
    """A line for each iteration: medians over searches, see `hypercrl.planning.search.stacked`."""
    plans = counted(len(searches), "plan")
    lines = [f"medians of {plans}, spread and shift in halves of the action range"]
    for number, seen in enumerate(medians(searches), start=1):
        values = ", ".join(f"{name.replace('_', ' ')} {v:.4g}" for name, v in seen.items())
        lines.append(f"  iteration {number}: {values}")
    return "\n".join(lines)
