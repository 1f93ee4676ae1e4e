"""What is lost in evaluation by not being told the task? A trained agent, told and under beliefs.

    python scripts/told_or_inferred.py RUN [--checkpoint NAME] [--episodes 8] [--usual 5]

RUN has ended. With labels given no decision can be wrong: the model of each task acts in `--usual`
episodes of its own, with the exploration of planned steps, and what it errs in them is usual. With
inferred labels it is what the run kept, and a task's own model is the one that the agent acted with
when the task ended. Then every task is evaluated, from the same starts: *told* which model is its
own; under the posterior over all models by the covariance of each model's usual errors, as
`task_id=inferred` has it; by *one width* for all models and dimensions, as where no usual errors
are kept, from the median of the models' mean squared errors; and by a width of a quarter of it.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from hypercrl.agent.belief import Belief
from hypercrl.agent.exploration import make_noise
from hypercrl.agent.inferred_labels import InferredLabels
from hypercrl.agent.known_tasks import TaskPosterior, Watched
from hypercrl.agent.task_labels import GivenLabels
from hypercrl.agent.trials import Episode, Trials
from hypercrl.base.random_streams import derive_seed
from hypercrl.base.strict_json import from_json, write_json
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run
from hypercrl.training.result import git_revision, machine

Believe = Callable[[int, int], Belief]
"""By task and number of robots, what an agent knows as its episodes begin."""


def owners(run: RunFolder, experiment: Experiment) -> list[int]:
    """The model of each of the sequence's tasks, as the agent counts them.

    Example:
        A second task in which the agent went on with the first one's model, and a third that it
        found to be new, have models 0, 0 and 1.
    """
    tasks = range(len(experiment.sequence))
    if not isinstance(experiment.labels, InferredLabels):
        return list(tasks)
    decisions = from_json(run.result_path.read_bytes())["decisions"]
    return [next((d["chosen"] for d in decisions[::-1] if d["task"] <= t), 0) for t in tasks]


def own_errors(experiment: Experiment, task: int, known: int, episodes: int) -> Tensor:
    """[T, E, O] of a task's model that acts in its own task, with the exploration of training; it
    is one of so many that are known."""
    config, scale = experiment.config, experiment.model.target_normaliser.scale
    seed = derive_seed(config.seed, "usual errors", task)
    robots = [experiment.sequence.make(task) for _ in range(episodes)]
    noise = make_noise(robots[0], config.exploration, episodes, torch.Generator().manual_seed(seed))
    generator = torch.Generator(experiment.device).manual_seed(seed)
    agent = experiment.agent(task, robots[0], episodes, generator)
    told = GivenLabels(experiment.method).belief
    models = [told(other, episodes) for other in range(known)]
    watched = Watched(models, scale, episodes, task)
    agent.believe(watched)
    seen = [robot.reset(seed=derive_seed(seed, i))[0] for i, robot in enumerate(robots)]
    obs = torch.from_numpy(np.stack(seen))
    for robot in range(episodes):
        noise.reset(robot)
    errors = []
    for _ in range(experiment.sequence.episode_steps[task]):
        actions = agent.act(obs) + config.exploration.planned_std * noise.step()
        actions = actions.clamp(-1, 1)
        stepped = [robot.step(a.numpy())[0] for robot, a in zip(robots, actions, strict=True)]
        after = torch.from_numpy(np.stack(stepped))
        agent.observe(obs, actions, after)
        errors.append(watched.errors[:, task].cpu())
        obs = after
    for robot in robots:
        robot.close()
    return torch.stack(errors)


def usual_errors(experiment: Experiment, tasks: int, episodes: int) -> tuple[Trials, float]:
    """Those of models in their own tasks, and a right model's mean squared error, the median of the
    tasks', or as the run expects it."""
    if isinstance(labels := experiment.labels, InferredLabels):
        return labels.trials, labels.inference.expected_error
    trials = Trials(0, 0.05, experiment.model.obs_size)
    squares = []
    for task in track(range(tasks), "usual errors", transient=True):
        errors = own_errors(experiment, task, tasks, episodes)
        squares.append(float(errors.square().mean()))
        trials.begin_new()
        each = [episode.mT @ episode / len(episode) for episode in errors.unbind(1)]
        trials.usual[task] = [Episode(moment, 0.0) for moment in each]
    expected = median(squares)
    return trials, expected


def beliefs(experiment: Experiment, own: Sequence[int], episodes: int) -> dict[str, Believe]:
    """What is compared, by name, where `own` are the models of the tasks."""
    trials, expected = usual_errors(experiment, len(own), episodes)
    told = GivenLabels(experiment.method).belief
    labels = experiment.labels
    possible = labels.inference.settled if isinstance(labels, InferredLabels) else own
    one_width = Trials(0, 0.05, experiment.model.obs_size)
    one_width.usual = [[] for _ in range(max(possible) + 1)]
    scale = experiment.model.target_normaliser.scale

    def under(trials: Trials, expected: float) -> Believe:
        usual = trials.covariances(possible, expected)

        def posterior(_task: int, robots: int) -> Belief:
            models = [told(other, robots) for other in possible]
            return TaskPosterior(models, scale, robots, usual) if len(models) > 1 else models[0]

        return posterior

    return {
        "told": lambda task, robots: told(own[task], robots),
        "by covariance": under(trials, expected),
        "one width": under(one_width, expected),
        "a quarter of it": under(one_width, expected / 4),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or push_demo")
    parser.add_argument("--checkpoint", default="latest")
    parser.add_argument("--episodes", type=int, default=8, help="of each task")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--usual", type=int, default=5, help="episodes in a model's own task")
    parser.add_argument("--tasks", type=int, help="the first ones alone; all")
    parser.add_argument("--out", type=Path, help="JSON file for the scores")
    given = parser.parse_args()
    torch.set_num_threads(1)
    experiment = open_run(given.run, given.device, given.checkpoint)
    evaluator = experiment.evaluator()
    table = Table(title=f"{given.run.name}, {given.episodes} episodes of each task")
    console = Console()
    for column in ("", "success", "of each task", "return"):
        table.add_column(column)
    found = {}
    own = owners(RunFolder.open(given.run), experiment)[: given.tasks]
    for name, believe in beliefs(experiment, own, given.usual).items():
        scores = []
        for task in track(range(len(own)), name, transient=True):
            scores += evaluator.evaluate({task: partial(believe, task)}, given.episodes, 0)
        each = [score.success for score in scores]
        returns = [score.episode_return for score in scores]
        found[name] = {"success": each, "return": returns}
        shown = " ".join(f"{success:.2f}" for success in each)
        table.add_row(name, f"{mean(each):.3f}", shown, f"{mean(returns):.1f}")
        console.print(f"{name}: {mean(each):.3f} ({shown})")
    console.print(table)
    if given.out is not None:
        made = {"machine": machine(experiment.device), "git": git_revision()}
        write_json(given.out, {"scores": found, **made})


if __name__ == "__main__":
    main()
