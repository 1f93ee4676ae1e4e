"""What tells a known task from a new one? Errors of known models, by which of them acts.

    python scripts/revisit_errors.py RUN [--checkpoint NAME] [--episodes 6] [--quiet]

RUN has learned three tasks or more with labels given. In each of the first three, in turn, the
model of each of them acts, with the exploration of planned steps, or with --quiet without any as in
a hearing, and every step is predicted by all three. An episode's statistic is that of one model,
over its mean in the episodes in which it acted in its own task: the squared error, its root, its
logarithm, or capped at three times that mean, as means over the steps; the squared error of every
dimension over its own mean, or through the inverse of all dimensions' covariance; relative to the
predicted motion; or the squared error after several steps without looking, with the actions taken.

Shown is the probability that an episode of a wrong model has a larger one than an episode of a
right one (0.5: it says nothing, 1: a threshold separates them). *In doubt*, where a wrong model
acts, as it does after a change: the right model against the others. *Itself*: each model where it
acts itself, in its own task against in another's; the spread of the right ones' logarithms, the
largest of them and the least of a wrong one.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from hypercrl.agent.belief import Told
from hypercrl.agent.exploration import make_noise
from hypercrl.base.random_streams import derive_seed
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run

TASKS = 3
WITHOUT_LOOKING = (2, 3, 5, 7, 10)


class Episodes(NamedTuple):
    """Of one task in which one model acted; [T, E, ...] of T steps and E episodes.

    Attributes:
        errors: [TASKS, T, E, O], of each model, in units of a step's change.
        motions: [TASKS, T, E], mean squares of the motions that they predicted.
        lasting: by number of steps without looking, [TASKS, T − steps + 1, E], squared errors.
    """

    errors: Tensor
    motions: Tensor
    lasting: dict[int, Tensor]


Recorded = dict[tuple[int, int], Episodes]
"""By task and by which model acted."""

Statistic = Callable[[Episodes, int, Episodes], Tensor]
"""[T, E] of episodes for a model, and the episodes in which that one acted in its own task."""


def _squares(of: Episodes, model: int) -> Tensor:
    return of.errors[model].square().mean(-1)


def _by_dimension(of: Episodes, model: int, own: Episodes) -> Tensor:
    return (of.errors[model].square() / own.errors[model].square().mean((0, 1))).mean(-1)


def _by_covariance(of: Episodes, model: int, own: Episodes) -> Tensor:
    rows = own.errors[model].flatten(0, 1)
    covariance = rows.mT @ rows / len(rows)
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(len(covariance))
    errors = of.errors[model]
    return (errors @ torch.linalg.inv(covariance + ridge) * errors).mean(-1)


def _by_motion(of: Episodes, model: int, own: Episodes) -> Tensor:
    squares = _squares(own, model)
    share = squares.sum() / own.motions[model].sum()
    return _squares(of, model) / (squares.median() + share * of.motions[model])


STATISTICS: dict[str, Statistic] = {
    "squared error": lambda of, model, _: _squares(of, model),
    "its root": lambda of, model, _: _squares(of, model).sqrt(),
    "its logarithm": lambda of, model, own: (
        3 + (0.1 + _squares(of, model) / _squares(own, model).mean()).log()
    ),
    "capped": lambda of, model, own: _squares(of, model).clamp(max=3 * _squares(own, model).mean()),
    "by dimension": _by_dimension,
    "by covariance": _by_covariance,
    "by motion": _by_motion,
    **{
        f"after {steps} steps": lambda of, model, _, steps=steps: of.lasting[steps][model]
        for steps in WITHOUT_LOOKING
    },
}


@torch.no_grad()
def recorded(
    experiment: Experiment, task: int, acting: int, episodes: int, *, quiet: bool
) -> Episodes:
    """The episodes of a task in which the model of another one, or its own, acts."""
    config, model = experiment.config, experiment.model
    scale = model.target_normaliser.scale
    told = [Told(experiment.method.planner_layers(known)(None)) for known in range(TASKS)]
    robots = [experiment.sequence.make(task) for _ in range(episodes)]
    seed = derive_seed(config.seed, "revisit errors", task, acting)
    noise = make_noise(robots[0], config.exploration, episodes, torch.Generator().manual_seed(seed))
    agent = experiment.agent(task, robots[0], episodes, torch.Generator().manual_seed(seed))
    agent.believe(told[acting])
    obs = torch.stack(
        [torch.from_numpy(r.reset(seed=derive_seed(seed, i))[0]) for i, r in enumerate(robots)]
    )
    for robot in range(episodes):
        noise.reset(robot)
    errors, motions = [], []
    path, taken = [obs], []
    std = 0.0 if quiet else config.exploration.planned_std
    for _ in range(experiment.sequence.episode_steps[task]):
        actions = agent.act(obs) + std * noise.step()
        actions = actions.clamp(-1, 1)
        stepped = [robot.step(a.numpy())[0] for robot, a in zip(robots, actions, strict=True)]
        after = torch.from_numpy(np.stack(stepped))
        expected = [belief.predict(obs, actions[:, None])[:, 1] for belief in told]
        errors.append(torch.stack([(state - after) / scale for state in expected]))
        motions.append(torch.stack([((s - obs) / scale).square().mean(-1) for s in expected]))
        obs = after
        path.append(obs)
        taken.append(actions)
    for robot in robots:
        robot.close()
    states, acts = torch.stack(path), torch.stack(taken)
    lasting = {
        steps: torch.stack([_lasting(belief, states, acts, steps, scale) for belief in told])
        for steps in WITHOUT_LOOKING
    }
    return Episodes(torch.stack(errors, 1), torch.stack(motions, 1), lasting)


def _lasting(belief: Told, states: Tensor, acts: Tensor, steps: int, scale: Tensor) -> Tensor:
    """[T − steps + 1, E] from states [T + 1, E, O] and acts [T, E, A]."""
    windows = acts.unfold(0, steps, 1).movedim(-1, 2)
    starts = states[: len(windows)]
    found = belief.predict(starts.flatten(0, 1), windows.flatten(0, 1))[:, -1].view(starts.shape)
    return ((found - states[steps:]) / scale).square().mean(-1)


class Separation(NamedTuple):
    """Of one statistic; see the top of the file."""

    doubt: float
    itself: float
    spread: float
    largest: float
    least: float


def separation(all_of: Recorded, statistic: Statistic) -> Separation:
    """How well a statistic tells right models from wrong ones."""

    def of(task: int, acting: int, model: int) -> Tensor:
        """[E], over what is usual of the model."""
        own = all_of[model, model]
        usual = statistic(own, model, own).mean()
        return statistic(all_of[task, acting], model, own).mean(0) / usual

    tasks = range(TASKS)
    misled = [(t, a) for t in tasks for a in tasks if a != t]
    right_in_doubt = torch.cat([of(t, a, t) for t, a in misled])
    wrong_in_doubt = torch.cat([of(t, a, m) for t, a in misled for m in tasks if m != t])
    right = torch.cat([of(t, t, t) for t in tasks])
    wrong = torch.cat([of(t, a, a) for t, a in misled])
    return Separation(
        _larger(wrong_in_doubt, right_in_doubt),
        _larger(wrong, right),
        float(right.log().std()),
        float(right.max()),
        float(wrong.min()),
    )


def _larger(one: Tensor, other: Tensor) -> float:
    """Probability that a value of the one is larger than a value of the other (Mann, Whitney)."""
    return float((one[:, None] > other).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or push_demo")
    parser.add_argument("--checkpoint", default="latest")
    parser.add_argument("--episodes", type=int, default=6, help="of each task with each model")
    parser.add_argument("--quiet", action="store_true", help="without exploration")
    given = parser.parse_args()
    torch.set_num_threads(1)
    experiment = open_run(given.run, "cpu", given.checkpoint)
    pairs = [(task, acting) for task in range(TASKS) for acting in range(TASKS)]
    all_of = {
        pair: recorded(experiment, *pair, given.episodes, quiet=given.quiet)
        for pair in track(pairs, "episodes", transient=True)
    }
    table = Table(title=f"{given.run.name}, {given.episodes} episodes of each task and model")
    for column in ("statistic", "in doubt", "itself", "spread, right", "largest, right"):
        table.add_column(column)
    table.add_column("least, wrong")
    for name, statistic in STATISTICS.items():
        values = separation(all_of, statistic)
        table.add_row(name, *(f"{value:.2f}" for value in values))
    Console().print(table)


if __name__ == "__main__":
    main()
