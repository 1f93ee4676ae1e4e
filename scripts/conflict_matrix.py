"""Do the tasks of a sequence contradict each other? Every single-task model on every task.

    python scripts/conflict_matrix.py RUN [RUN ...] [--episodes 10] [--device cpu] [--out FILE.json]

RUN is a finished `hypercrl train method=single`: one network per task, trained on that task alone.
Several runs, which may have trained side by side, count as one that has all their tasks in turn.
Row i, column j of each table is the model of task i on task j. A sequence in which the columns do
not depend on the row is no benchmark of memory. With `planner.dynamics=simulator` the model of a
task is its simulator: a sequence without conflict there has none for a model that is good enough.
"""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hypercrl.agent.belief import Belief
from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import write_json
from hypercrl.config.schema import learned_tasks
from hypercrl.training.evaluation import Evaluator, Score
from hypercrl.training.experiment import Experiment, build
from hypercrl.training.open_run import open_run

QUANTITIES = {"success": "Success", "episode_return": "Return", "prediction_error": "k-step error"}


@torch.no_grad()
def conflict_matrix(
    runs: list[Path], episodes: int, device: str
) -> tuple[list[str], list[list[Score]]]:
    """Captions of the N tasks, and the score of each model (row) on each task (column).

    Raises:
        UserError: there is no such run, or its method keeps no model of a task's own.
    """
    experiments = [_load(run, device) for run in runs]
    whole = experiments[0].config
    whole.env.tasks = [task for experiment in experiments for task in _tasks(experiment)]
    whole.protocol.num_tasks = whole.protocol.order = None
    together = build(whole)
    evaluator, tasks = together.evaluator(), range(len(together.sequence))
    if together.plans_with_simulator:
        models = [partial(evaluator.evaluate_oracle, imagined=i) for i in tasks]
    else:
        models = [
            partial(_score, evaluator, partial(experiment.labels.belief, i))
            for experiment in experiments
            for i in range(experiment.method.tasks)
        ]
    scores = [[model(j, episodes=episodes) for j in tasks] for model in track(models, "models")]
    evaluator.close()
    return list(together.sequence.captions), scores


def _score(
    evaluator: Evaluator, believe: Callable[[int], Belief], task: int, episodes: int
) -> Score:
    (score,) = evaluator.evaluate({task: believe}, episodes, key=0)
    return score


def _load(run: Path, device: str) -> Experiment:
    experiment = open_run(run, device)
    method = experiment.config.method.name
    if not experiment.plans_with_simulator and method != "single":
        raise UserError(f"{run} was trained with method={method}; use method=single.")
    return experiment


def _tasks(experiment: Experiment) -> list[Any]:
    """Those that there are models of."""
    simulated = experiment.plans_with_simulator
    models = len(experiment.sequence) if simulated else experiment.method.tasks
    return learned_tasks(experiment.config)[:models]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    try:
        tasks, scores = conflict_matrix(arguments.runs, arguments.episodes, arguments.device)
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    console = Console()
    for quantity, title in QUANTITIES.items():
        table = Table(title=title, title_justify="left")
        for column in ("model of", *(f"on {j + 1}" for j in range(len(tasks)))):
            table.add_column(column)
        for caption, row in zip(tasks, scores, strict=True):
            table.add_row(caption, *(f"{getattr(score, quantity):.3g}" for score in row))
        console.print(table)
    if arguments.out:
        values = {"tasks": tasks, "scores": [[asdict(s) for s in row] for row in scores]}
        write_json(arguments.out, values)


if __name__ == "__main__":
    main()
