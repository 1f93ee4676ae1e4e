"""Does a memory identify what a box weighs? Models of `push_hidden` with and without a memory.

    python scripts/find_densities.py [--models told none gru] [--episodes 6000] [--updates 30000]
        [--seed 0] [--device cuda] [--out FILE.json] [--set context.learning_rate=0.0003 ...]

Random episodes of the first task are collected by one process a core, densities drawn for each, and
every model is trained on the same: `told` observes the densities, `none` has no memory but the same
windows and loss, any other name is a memory. Then, on episodes of their own, the error of ten steps
open loop, over the ten dimensions that all see, by the step at which the prediction begins; and the
success of plans. What `hypercrl train env=push_hidden` does, without the wait for one simulator.
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hypercrl.agent.exploration import random_episode
from hypercrl.base.cores import cores
from hypercrl.base.errors import UserError
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.strict_json import write_json
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.replay import Replay
from hypercrl.training.evaluation import open_loop_errors
from hypercrl.training.experiment import Experiment, build
from hypercrl.training.learner import Learner
from hypercrl.training.result import git_revision, machine
from hypercrl_envs import TaskSequence

SEEN = 10
"""Dimensions of an observation that says nothing of densities; these come after it."""

BEGINS = (0, 6, 10, 15, 20)
"""Steps from which on predictions begin. Nearly all boxes are touched within the first ten."""

ROUND = 1000
"""Training steps whose windows are drawn at once."""


def load_config(model: str, args: argparse.Namespace) -> TrainConfig:
    """The quick preset of one task, with windows for all models alike."""
    told = model == "told"
    words = [
        f"env={'push_hidden_told' if told else 'push_hidden'}",
        f"memory={'none' if model in ('told', 'none') else model}",
        "context.always=true",
        "protocol.num_tasks=1",
        f"seed={args.seed}",
        f"device={args.device}",
        *args.set,
    ]
    return cast(TrainConfig, OmegaConf.to_object(composed("train", words)))


def collect(
    pool: ProcessPoolExecutor, config: TrainConfig, name: str, episodes: int
) -> tuple[Tensor, Tensor]:
    """Random episodes: observations [E, T + 1, O] and actions [E, T, A], by a pool of `cores()`."""
    parts = np.array_split(np.arange(episodes), 4 * cores())
    work = [part.tolist() for part in parts if len(part)]
    chunks = list(pool.map(partial(_episodes, config, name), work))
    obs, actions = (torch.from_numpy(np.concatenate(part)) for part in zip(*chunks, strict=True))
    return obs, actions


def _episodes(config: TrainConfig, name: str, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Episodes of these numbers; each depends on the run's seed, `name` and its number alone."""
    torch.set_num_threads(1)
    env = TaskSequence(config.env.tasks[:1], name=config.env.name).make(0)
    seeds = (derive_seed(config.seed, name, number) for number in numbers)
    pairs = [random_episode(env, config.exploration, seed) for seed in seeds]
    env.close()
    obs, actions = (torch.stack(part).numpy() for part in zip(*pairs, strict=True))
    return obs, actions


def fill(replay: Replay, obs: Tensor, actions: Tensor) -> None:
    """Put whole episodes into an empty replay that has room for them."""
    count, steps, _ = actions.shape
    begins = torch.zeros(count, steps, dtype=torch.bool)
    begins[:, 0] = True
    replay.load_state(
        {
            "added": count * steps,
            "obs": obs[:, :-1].flatten(0, 1),
            "action": actions.flatten(0, 1),
            "next_obs": obs[:, 1:].flatten(0, 1),
            "begins": begins.flatten(),
            "next_begins": [True],
        }
    )


def train(experiment: Experiment, obs: Tensor, actions: Tensor, updates: int) -> float:
    """Train the first task on episodes [E, T + 1, O] and [E, T, A]; seconds a training step."""
    experiment.config.protocol.replay_capacity = actions[..., 0].numel()
    learner = Learner(experiment)
    learner.begin_task()
    fill(learner.replay, obs, actions)
    learner.fit_normalisers()
    started = time.perf_counter()
    for first in range(0, updates, ROUND):
        learner.train(min(ROUND, updates - first), experiment.sequence.captions[0])
    return (time.perf_counter() - started) / updates


def measure(
    model: str, experiment: Experiment, data: Sequence[Tensor], args: argparse.Namespace
) -> dict[str, Any]:
    """Train one model and score it."""
    size, device = experiment.sequence.observation_size, experiment.device
    obs, actions, held_obs, held_actions = data
    seconds = train(experiment, obs[..., :size], actions, args.updates)
    held = held_obs[..., :size].to(device), held_actions.to(device)
    evaluator = experiment.evaluator()
    found = open_loop_errors(experiment.labels.belief(0, len(held_obs)), *held, evaluator.horizon)
    by_step = found[..., :SEEN].square().mean((1, 2))
    believe = {0: partial(experiment.labels.belief, 0)}
    (score,) = evaluator.evaluate(believe, args.plans, key=0)
    evaluator.close()
    encoder = cast(ContextModel, experiment.model).encoder
    return {
        "model": model,
        "seed": args.seed,
        "error_mm": {begin: 1e3 * float(by_step[begin:].mean().sqrt()) for begin in BEGINS},
        "error_mm_by_step": (1e3 * by_step.sqrt()).tolist(),
        "success": score.success,
        "return": score.episode_return,
        "state_bytes": 0 if model in ("told", "none") else encoder.state_bytes(),
        "update_milliseconds": 1e3 * seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["told", "none", "gru"])
    parser.add_argument("--episodes", type=int, default=6000)
    parser.add_argument("--heldout", type=int, default=200, help="episodes to measure errors on")
    parser.add_argument("--plans", type=int, default=60, help="episodes to measure success on")
    parser.add_argument("--updates", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="+", default=[], help="settings, as of hypercrl train")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    args = parser.parse_args()

    try:  # before the wait for episodes
        experiments = {model: build(load_config(model, args)) for model in args.models}
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    config = load_config("told", args)
    with ProcessPoolExecutor(cores(), get_context("forkserver")) as pool:
        data = [
            *collect(pool, config, "episodes to learn from", args.episodes),
            *collect(pool, config, "held-out episodes", args.heldout),
        ]
    rows = []
    table = Table(title="RMS error of ten steps, mm, by the step from which on they begin")
    for column in ("model", *(f"from {b}" for b in BEGINS), "success", "state", "an update"):
        table.add_column(column)
    for model, experiment in experiments.items():
        row = measure(model, experiment, data, args)
        rows.append(row)
        table.add_row(
            model,
            *(f"{row['error_mm'][begin]:.2f}" for begin in BEGINS),
            f"{row['success']:.2f}",
            f"{row['state_bytes']} B",
            f"{row['update_milliseconds']:.2f} ms",
        )
        if args.out:
            values = {
                "git": git_revision(),
                "machine": machine(experiment.device),
                "episodes": args.episodes,
                "updates": args.updates,
                "set": args.set,
                "exploration": asdict(config.exploration),
                "tasks": config.env.tasks[:1],
                "rows": rows,
            }
            write_json(args.out, values)
    Console().print(table)


if __name__ == "__main__":
    main()
