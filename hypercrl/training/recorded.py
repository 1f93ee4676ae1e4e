"""Episodes of a trained run: those that its agent plays now, and those that its replay holds."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from hypercrl.agent.agent import Agent
from hypercrl.base.errors import UserError
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.strict_json import from_json, to_json
from hypercrl.replay import Replay
from hypercrl.replay.datasets import Episode
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.experiment import Experiment
from hypercrl_envs import Task
from hypercrl_envs.gymnasium_ids import IDS
from hypercrl_envs.sequence import spelt_out


def rolled_out(
    experiment: Experiment, task: int, env: Task, episodes: int, seed: int
) -> list[Episode]:
    """Episodes that the agent plays in `env`, of task `task` (from 0), as `hypercrl play` would."""
    agent = experiment.player(task, env, seed)
    return [_play(agent, env, derive_seed(seed, "play", number)) for number in range(episodes)]


def _play(agent: Agent, env: Task, seed: int) -> Episode:
    obs, _ = env.reset(seed=seed)
    agent.reset()
    observations, actions, rewards = [obs], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        before = torch.from_numpy(obs)[None]
        action = agent.act(before)
        obs, reward, terminated, truncated, _ = env.step(action[0].numpy())
        agent.observe(before, action, torch.from_numpy(obs)[None])
        observations.append(obs)
        actions.append(action[0].clamp(-1, 1).numpy())
        rewards.append(float(reward))
    stacked = np.stack(observations)
    arrays = stacked, np.stack(actions), np.array(rewards)
    return Episode(*arrays, bool(terminated), _info(env, torch.from_numpy(stacked)), seed)


def from_replay(run: Path, experiment: Experiment, task: int, env: Task) -> list[Episode]:
    """What training held of task `task` (from 0) as it ended, or holds while it lasts.

    The replay keeps the latest `protocol.replay_capacity` transitions of one task, without rewards
    and ends: these are computed anew by the functions of `env`, which is of this task. The first
    episode may have lost its beginning, and the last one may be cut short.

    Raises:
        UserError: no checkpoint of the run holds transitions of this task, or what it holds may be
            of another one too.
    """
    if experiment.config.task_id != "given":
        raise UserError(
            "source=replay needs task_id=given: an agent that infers the task may hold transitions "
            "of several. Use source=rollout."
        )
    if task and experiment.config.protocol.blur:
        raise UserError(
            f"with protocol.blur={experiment.config.protocol.blur} training of task {task + 1} "
            "began with episodes of the task before, which its replay may hold. Use source=rollout."
        )
    folder = RunFolder.open(run)
    name = f"after_task_{task + 1}"
    checkpoint = folder.load_checkpoint(name if name in folder.checkpoints() else "latest")
    if "learner" not in checkpoint:
        raise UserError(f"{run} holds an agent without its replay. Use source=rollout.")
    position = checkpoint["position"]
    at_its_end = position["step"] == 0 and position["task"] == task + 1
    if not (at_its_end or (position["step"] > 0 and position["task"] == task)):
        raise UserError(
            f"{run} holds no transitions of task {task + 1}: its replay is emptied as the next "
            f"task begins, and there is no checkpoint {name!r}. Use source=rollout."
        )
    sizes = experiment.model.obs_size, experiment.model.action_size
    protocol = experiment.config.protocol
    replay = Replay(protocol.replay_capacity, *sizes, torch.device("cpu"), protocol.robots)
    replay.load_state(checkpoint["learner"]["replay"])
    recorded = []
    for part in replay.episodes():
        obs = torch.cat([part.obs, part.next_obs[-1:]])
        transition = part.obs, part.action, part.next_obs
        recorded.append(
            Episode(
                obs.numpy(),
                part.action.numpy(),
                env.reward(*transition).double().numpy(),
                bool(env.terminated(*transition)[-1]),
                _info(env, obs),
            )
        )
    return recorded


def _info(env: Task, obs: Tensor) -> dict[str, np.ndarray]:
    return {
        "success": env.success(obs).numpy(),
        "goal_distance": env.goal_distance(obs).double().numpy(),
    }


def described(experiment: Experiment, task: int) -> dict[str, Any]:
    """Name and parameters of task `task` (from 0), as JSON has them, and its sequence's name."""
    spec = spelt_out(experiment.sequence.specs[task])
    return {"sequence": experiment.sequence.name, **{k: v for k, v in spec.items() if _in_json(v)}}


def _in_json(value: Any) -> bool:
    try:
        return from_json(to_json(value)) == value
    except (TypeError, ValueError):
        return False  # a default of a class of somebody's


def env_spec(experiment: Experiment, task: int, env: Task) -> EnvSpec | None:
    """What `gymnasium.make` makes `env`, of task `task` (from 0), from; None where it has no id of
    its own."""
    kind, parameters = (spec := dict(experiment.sequence.specs[task])).pop("task"), spec
    if kind not in IDS:
        return None
    made = gymnasium.make(IDS[kind], **parameters)
    made.close()
    same = made.observation_space == env.observation_space
    return made.spec if same else None
