"""Do the members of an ensemble disagree where they are wrong? Spread against error, in figures.

    python scripts/calibrate_members.py [SETTINGS ...] [--seeds 3] [--out FILE.json]

Trains an ensemble on random episodes of each task of `preset=quick env=push`, one task after the
other, without planning, on as many transitions and for as many updates as the preset has. SETTINGS
are those of `hypercrl train`, by default method=hnet method.members=5. What is kept from it are
transitions whose tip is more than `LEFT` to the left of the middle, so that held-out episodes have
transitions in and outside of the region of the data. Of both, and of every task after the last one:
the error of the members' mean over one step and over ten, the members' spread, Spearman's rank
correlation of the two, and the probability that one outside has a larger spread than one in. Then
error over spread in five groups of equal count by the spread, the smallest first. That is
√((M + 1) / (M − 1)) if the truth is as far from the members as they are from one another, and more
where they are too sure.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from hypercrl.agent.exploration import random_episode
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.strict_json import write_json
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.training.experiment import Experiment, build
from hypercrl.training.learner import Learner
from hypercrl.training.result import git_revision, machine

DEFAULT = ("method=hnet", "method.members=5")
LEFT = 0.02
"""Metres; the tip's y of what is never trained on is larger."""

HELDOUT = 20
"""Random episodes of each task."""

HORIZONS = (1, 10)
GROUPS = 5
SHOWN = ("in", "outside")


@dataclass(frozen=True)
class Calibration:
    """Of one seed's ensemble on one task over so many steps.

    Attributes:
        horizon: steps of the predictions.
        task: from 1.
        error, spread: in and outside, root mean squares in units of a step's change.
        rank: Spearman's correlation of the two in, outside and over both.
        outside: probability that a transition outside has a larger spread than one in.
        groups: error and spread of `GROUPS` groups by the spread, over both.
    """

    horizon: int
    task: int
    seed: int
    error: dict[str, float]
    spread: dict[str, float]
    rank: dict[str, float]
    outside: float
    groups: list[tuple[float, float]]


def trained(settings: list[str], seed: int) -> Experiment:
    """An ensemble that has learned all tasks of the sequence."""
    words = ["preset=quick", "env=push", *(settings or DEFAULT), "device=cpu", f"seed={seed}"]
    config = cast(TrainConfig, OmegaConf.to_object(composed("train", words)))
    experiment, protocol = build(config), config.protocol
    learner = Learner(experiment)
    steps = protocol.random_steps + protocol.planned_steps
    rounds = protocol.planned_steps // protocol.update_every
    updates = (protocol.first_updates or protocol.updates) + (rounds - 1) * protocol.updates
    for task in range(len(experiment.sequence)):
        env, number = experiment.sequence.make(task), 0
        learner.begin_task()
        while learner.age < steps:
            key = derive_seed(seed, "calibration", task, number)
            obs, actions = random_episode(env, config.exploration, key)
            learner.replay.begin_episode()
            for before, action, after in zip(obs[:-1], actions, obs[1:], strict=True):
                if not is_outside(before) and learner.age < steps:
                    learner.add(before[None], action[None], after[None])
            number += 1
        learner.fit_normalisers()
        learner.train(updates, env.caption)
        learner.end_task()
        env.close()
    return experiment


def is_outside(obs: Tensor) -> Tensor:
    """[...] whether the tip [..., O] is where nothing was learned."""
    return obs[..., 1] > LEFT


@torch.no_grad()
def calibration(experiment: Experiment, task: int, horizon: int) -> Calibration:
    """Spread and error over held-out episodes of a task."""
    config, env = experiment.config, experiment.sequence.make(task)
    keys = [derive_seed(config.seed, "held-out calibration", task, i) for i in range(HELDOUT)]
    episodes = [random_episode(env, config.exploration, key) for key in keys]
    env.close()
    windows = torch.cat([obs.unfold(0, horizon + 1, 1).mT for obs, _ in episodes])
    actions = torch.cat([action.unfold(0, horizon, 1).mT for _, action in episodes])
    belief = experiment.labels.belief(task, 1)
    scale = experiment.model.target_normaliser.scale

    def size(difference: Tensor) -> Tensor:
        return (difference / scale).square().mean(-1).sqrt()

    expected = belief.predict(windows[:, 0], actions)[:, -1]
    found = belief.spread(windows[:, 0], actions, 1, torch.Generator())
    assert found is not None
    error, spread = size(expected - windows[:, -1]), size(found[:, -1])
    beyond = is_outside(windows[:, :-1]).any(1)
    parts = {"in": ~beyond, "outside": beyond, "both": torch.ones_like(beyond)}
    by_spread = spread.argsort().chunk(GROUPS)
    return Calibration(
        horizon,
        task + 1,
        config.seed,
        {part: _rms(error[rows]) for part, rows in parts.items()},
        {part: _rms(spread[rows]) for part, rows in parts.items()},
        {part: _rank_correlation(spread[rows], error[rows]) for part, rows in parts.items()},
        _larger(spread[beyond], spread[~beyond]),
        [(_rms(error[rows]), _rms(spread[rows])) for rows in by_spread],
    )


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _larger(one: Tensor, other: Tensor) -> float:
    """Probability that a value of the one is larger than a value of the other (Mann, Whitney)."""
    return float(torch.searchsorted(other.sort().values, one).double().mean() / len(other))


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's; no two values are the same."""
    ranks = torch.stack([one, other]).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def show(found: list[Calibration], console: Console) -> None:
    for horizon in HORIZONS:
        rows = [c for c in found if c.horizon == horizon]
        table = Table(title=f"{horizon} step(s), means over {len({c.seed for c in rows})} seeds")
        columns = ("task", "error in / out", "spread in / out", "rank in / out / both", "outside")
        for column in (*columns, "error / spread by group"):
            table.add_column(column)
        for task in sorted({c.task for c in rows}):
            of = [c for c in rows if c.task == task]
            pairs = [
                " / ".join(f"{mean(getattr(c, name)[part] for c in of):.2f}" for part in parts)
                for name, parts in (
                    ("error", SHOWN),
                    ("spread", SHOWN),
                    ("rank", (*SHOWN, "both")),
                )
            ]
            ratios = [mean(c.groups[g][0] / c.groups[g][1] for c in of) for g in range(GROUPS)]
            last = " ".join(f"{ratio:.1f}" for ratio in ratios)
            table.add_row(str(task), *pairs, f"{mean(c.outside for c in of):.2f}", last)
        console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("settings", nargs="*", help="of hypercrl train")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file for every row")
    arguments = parser.parse_args()
    found = []
    for seed in track(range(arguments.seeds), "seeds"):
        experiment = trained(arguments.settings, seed)
        found += [
            calibration(experiment, task, horizon)
            for horizon in HORIZONS
            for task in range(len(experiment.sequence))
        ]
    show(found, Console())
    if arguments.out:
        document: dict[str, Any] = {
            "settings": arguments.settings or list(DEFAULT),
            "commit": git_revision(),
            "machine": machine(torch.device("cpu")),
            "rows": [asdict(c) for c in found],
        }
        write_json(arguments.out, document, indent=1)


if __name__ == "__main__":
    main()
