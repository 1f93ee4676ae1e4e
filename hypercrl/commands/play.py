"""hypercrl play: replay a trained agent on one task, to mp4."""

from pathlib import Path

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
from hypercrl.video import VideoWriter, caption
from hypercrl_envs import RenderingUnavailable, Task


def play(config: DictConfig) -> None:
    """Run episodes of a task with a checkpoint's model, and write them to a video if asked."""
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
    tasks = len(experiment.sequence)
    if not 1 <= settings.task <= tasks:
        raise UserError(f"task={settings.task}: this run has the tasks 1 to {tasks}.")
    with folder.foreign_state_refused(settings.checkpoint):
        experiment.method.load_state(folder.load_checkpoint(settings.checkpoint)["method"])
    console = Console()
    if settings.task > experiment.method.tasks:
        console.print(
            f"task {settings.task} was not trained in checkpoint {settings.checkpoint!r}: "
            f"playing it with the model of task {experiment.method.tasks}"
        )
    if video is None:
        _run_episodes(experiment, settings, None, console)
        return
    try:
        with VideoWriter(video, fps=10) as writer:
            _run_episodes(experiment, settings, writer, console)
    except RenderingUnavailable as error:
        raise UserError(f"no video was written: {error}") from error
    console.print(f"video: {video}", highlight=False, soft_wrap=True)


def _run_episodes(
    experiment: Experiment, settings: PlayConfig, writer: VideoWriter | None, console: Console
) -> None:
    task = settings.task - 1
    mode = "rgb_array" if writer else None
    try:
        env = experiment.sequence.make(
            task,
            render_mode=mode,
            width=settings.size,
            height=settings.size,
            camera=settings.camera,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    generator = torch.Generator(experiment.device).manual_seed(settings.seed)
    agent = Agent(experiment.planner, env.reward, 1, generator)
    with torch.no_grad():
        agent.set_layers(experiment.model.planning_layers(experiment.method.weights(task)))
    label = f"task {task + 1}/{len(experiment.sequence)}  {env.caption}"
    for episode in range(settings.episodes):
        seed = derive_seed(settings.seed, "play", episode)
        total, info = _run_episode(env, agent, seed, writer, f"{label}  episode {episode + 1}")
        console.print(
            f"episode {episode + 1}: return {total:.1f}, "
            f"{'success' if info['success'] else 'no success'}, "
            f"{1e3 * info['goal_distance']:.0f} mm from the goal",
            highlight=False,
        )
    env.close()


def _run_episode(
    env: Task, agent: Agent, seed: int, writer: VideoWriter | None, label: str
) -> tuple[float, dict]:
    obs, info = env.reset(seed=seed)
    agent.reset()
    total = 0.0
    for step in range(env.max_episode_steps):
        action = agent.act(torch.from_numpy(obs)[None])[0].numpy()
        obs, reward, _, _, info = env.step(action)
        total += float(reward)
        if writer is not None:
            state = "success" if info["success"] else ""
            writer.add(caption(env.render(), f"{label}  step {step + 1}  {state}"))
    return total, info
