"""What is lost in evaluation by not being told the task? A trained agent, told and under beliefs.

    python scripts/told_or_inferred.py RUN [--checkpoint NAME] [--episodes 8] [--usual 5]

RUN has learned three tasks or more with labels given, so that no decision can be wrong. Of the
first three, the model of each acts in `--usual` episodes of its own task, with the exploration of
planned steps: what it errs in them is usual. Then every task is evaluated: *told*; under the
posterior over all three by the covariance of each model's usual errors, as `task_id=inferred`
has it; and by *one width*, the mean of all models' usual squared errors, for all models and
dimensions alike, which was the rule before: a quarter of the evidence of a step, over O.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median

import torch
from revisit_errors import TASKS, recorded
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from hypercrl.agent.belief import Belief
from hypercrl.agent.known_tasks import EVIDENCE, TaskPosterior
from hypercrl.agent.trials import Episode, Trials
from hypercrl.base.strict_json import write_json
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run
from hypercrl.training.result import git_revision, machine

EVIDENCE_BEFORE = 0.25
"""Share of the mean over the dimensions of e² / 2 s² that a step counted."""


Believe = Callable[[int, int], Belief]
"""By task and number of robots, what an agent knows as its episodes begin."""


def usual_errors(experiment: Experiment, episodes: int) -> tuple[Tensor, float]:
    """Covariances [TASKS, O, O] of the errors of models in their own tasks, and a right model's
    mean squared error, the median of the tasks'."""
    trials = Trials(0, 0.05, experiment.model.obs_size)
    squares = []
    for task in track(range(TASKS), "usual errors", transient=True):
        errors = recorded(experiment, task, task, episodes, quiet=False).errors[task]
        squares.append(float(errors.square().mean()))
        trials.begin_new()
        each = [episode.mT @ episode / len(episode) for episode in errors.unbind(1)]
        trials.usual[task] = [Episode(moment, 0.0) for moment in each]
    expected = median(squares)
    return trials.covariances(range(TASKS), expected), expected


def beliefs(experiment: Experiment, episodes: int) -> dict[str, Believe]:
    """What is compared, by name."""
    covariances, expected = usual_errors(experiment, episodes)
    size = experiment.model.obs_size
    width = EVIDENCE / EVIDENCE_BEFORE * size * expected
    scale = experiment.model.target_normaliser.scale

    def under(usual: Tensor) -> Believe:
        def posterior(_task: int, robots: int) -> TaskPosterior:
            known = [experiment.labels.belief(other, robots) for other in range(TASKS)]
            return TaskPosterior(known, scale, robots, usual)

        return posterior

    return {
        "told": experiment.labels.belief,
        "by covariance": under(covariances),
        "one width": under(width * torch.eye(size).expand(TASKS, -1, -1)),
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run, or push_demo")
    parser.add_argument("--checkpoint", default="latest")
    parser.add_argument("--episodes", type=int, default=8, help="of each task")
    parser.add_argument("--usual", type=int, default=5, help="episodes in a model's own task")
    parser.add_argument("--out", type=Path, help="JSON file for the scores")
    given = parser.parse_args()
    torch.set_num_threads(1)
    experiment = open_run(given.run, "cpu", given.checkpoint)
    evaluator = experiment.evaluator()
    table = Table(title=f"{given.run.name}, {given.episodes} episodes of each task")
    console = Console()
    for column in ("", "success", "of each task", "return"):
        table.add_column(column)
    found = {}
    for name, believe in beliefs(experiment, given.usual).items():
        scores = []
        for task in track(range(TASKS), name, transient=True):
            scores += evaluator.evaluate({task: partial(believe, task)}, given.episodes, 0)
        each = [score.success for score in scores]
        returns = [score.episode_return for score in scores]
        found[name] = {"success": each, "return": returns}
        shown = " ".join(f"{success:.2f}" for success in each)
        table.add_row(name, f"{mean(each):.3f}", shown, f"{mean(returns):.1f}")
        console.print(f"{name}: {mean(each):.3f}")
    console.print(table)
    if given.out is not None:
        made = {"machine": machine(experiment.device), "git": git_revision()}
        write_json(given.out, {"scores": found, **made})


if __name__ == "__main__":
    main()
