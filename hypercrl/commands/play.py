"""hypercrl play: replay a trained agent on one task, or on all of them, to mp4."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from hypercrl.agent import Agent
from hypercrl.config import PlayConfig, TrainConfig
from hypercrl.errors import UserError
from hypercrl.experiment import Experiment, build
from hypercrl.random_streams import derive_seed
from hypercrl.run_folder import RunFolder
from hypercrl.settings import check
from hypercrl.video import VideoWriter, caption, tile
from hypercrl_envs import RenderingUnavailable, Task

FPS = 10  # one frame per control step: the video runs in real time


def play(config: DictConfig) -> None:
    """Run episodes with a checkpoint's model, and write them to a video if asked."""
    if OmegaConf.is_missing(config, "run"):
        raise UserError("play needs a run: hypercrl play run=DIR task=1 video=out.mp4")
    settings = OmegaConf.to_object(config)
    assert isinstance(settings, PlayConfig)
    check(settings)
    folder = RunFolder.open(Path(settings.run))
    video = Path(settings.video) if settings.video else None
    if video and video.exists():
        raise UserError(f"{video} exists already and is left as it is; name another video.")
    if video and video.suffix != ".mp4":
        raise UserError(f"video={video} must end in .mp4.")
    trained = folder.config(TrainConfig)
    trained.device = settings.device
    experiment = build(trained)
    count = len(experiment.sequence)
    if not 1 <= settings.task <= count:
        raise UserError(f"task={settings.task}: this run has the tasks 1 to {count}.")
    with folder.foreign_state_refused(settings.checkpoint):
        experiment.method.load_state(folder.load_checkpoint(settings.checkpoint)["method"])
    numbers = range(1, count + 1) if settings.tiled else [settings.task]
    console = Console()
    for number in numbers:
        if number > experiment.method.tasks:
            console.print(
                f"task {number} was not trained in checkpoint {settings.checkpoint!r}: "
                f"playing it with the model of task {experiment.method.tasks}"
            )
    stages = [_stage(experiment, settings, number) for number in numbers]
    if video is None:
        _run_episodes(stages, settings, None, console)
        return
    try:
        with VideoWriter(video, FPS) as writer:
            _run_episodes(stages, settings, writer, console)
    except RenderingUnavailable as error:
        raise UserError(f"no video was written: {error}") from error
    console.print(f"video: {video}", highlight=False, soft_wrap=True)


@dataclass
class _Stage:
    """One task, the agent that plays it, and how the present episode stands."""

    env: Task
    agent: Agent
    label: str
    obs: np.ndarray = field(init=False)
    info: dict[str, Any] = field(init=False)
    total: float = 0.0

    def reset(self, seed: int) -> None:
        self.obs, self.info = self.env.reset(seed=seed)
        self.agent.reset()
        self.total = 0.0

    def step(self) -> None:
        action = self.agent.act(torch.from_numpy(self.obs)[None])[0].numpy()
        self.obs, reward, _, _, self.info = self.env.step(action)
        self.total += float(reward)

    def picture(self, text: str) -> np.ndarray:
        success = "  success" if self.info["success"] else ""
        return caption(self.env.render(), f"{self.label}  {text}{success}")


def _stage(experiment: Experiment, settings: PlayConfig, number: int) -> _Stage:
    try:
        env = experiment.sequence.make(
            number - 1,
            render_mode="rgb_array" if settings.video else None,
            width=settings.size,
            height=settings.size,
            camera=settings.camera,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    generator = torch.Generator(experiment.device).manual_seed(settings.seed)
    agent = Agent(experiment.planner, env.reward, 1, generator)
    with torch.no_grad():
        layers = experiment.method.layers(number - 1)
        agent.set_layers(experiment.model.planning_layers(layers))
    return _Stage(env, agent, f"task {number}/{len(experiment.sequence)}  {env.caption}")


def _run_episodes(
    stages: Sequence[_Stage], settings: PlayConfig, writer: VideoWriter | None, console: Console
) -> None:
    for episode in range(settings.episodes):
        for stage in stages:
            stage.reset(derive_seed(settings.seed, "play", episode))
        # A task whose episode is over waits in its last state for the longest one.
        for step in range(max(stage.env.max_episode_steps for stage in stages)):
            for stage in stages:
                if step < stage.env.max_episode_steps:
                    stage.step()
            if writer is not None:
                text = f"episode {episode + 1}  step {step + 1}"
                writer.add(tile([stage.picture(text) for stage in stages]))
        for stage in stages:
            outcome = "success" if stage.info["success"] else "no success"
            console.print(
                f"{stage.label}, episode {episode + 1}: return {stage.total:.1f}, {outcome}, "
                f"{1e3 * stage.info['goal_distance']:.0f} mm from the goal",
                highlight=False,
            )
    for stage in stages:
        stage.env.close()
