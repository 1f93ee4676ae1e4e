"""How few samples will do? Planners in closed loop on all tasks of a trained run.

    python scripts/compare_planners.py RUN [--planners cem icem] [--fractions 1 2 4 8]
        [--episodes 10] [--repeats 3] [--device cpu] [--out FILE.json]

Each planner is given 1, 1/2, 1/4 and 1/8 of the run's samples and elites; the model stays the
run's. Settings of its own follow a planner's name: icem,noise_beta=2.5,kept=0. A run of
planner.dynamics=simulator compares them on true dynamics. Start states are the same for all;
repeats differ in the planner's noise. FILE is written after each row: one process for each planner
and fraction, side by side, is the fastest where there are cores.
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import cast

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.progress import track
from rich.table import Table

from hypercrl.base.errors import UserError, first_line
from hypercrl.base.settings import check
from hypercrl.base.strict_json import write_json
from hypercrl.planning import PLANNERS, Planner, PlannerConfig, make_planner
from hypercrl.training.evaluation import Evaluator, Score
from hypercrl.training.experiment import Experiment
from hypercrl.training.open_run import open_run
from hypercrl.training.result import git_revision, machine

FEWEST_ELITES = 4


@dataclass(frozen=True)
class Row:
    """One planner at one size; an episode mean per repeat and task."""

    planner: str
    samples: int
    elites: int
    success: list[list[float]]
    episode_return: list[list[float]]
    plan_milliseconds: float


def sized(planner: str, config: PlannerConfig, fraction: int) -> PlannerConfig:
    """That planner with 1/`fraction` of the samples of `config`, its own settings, all else alike.

    Raises:
        UserError: no such planner, no such setting of it, or a value out of its limits.
    """
    name, *own = planner.split(",")
    if name not in PLANNERS:
        raise UserError(f"a planner is one of {', '.join(PLANNERS)}, not {name!r}.")
    shared = {f.name: getattr(config, f.name) for f in fields(PlannerConfig)}
    elites = max(FEWEST_ELITES, round(config.elites / fraction))
    samples = max(elites, round(config.samples / fraction))
    sizes = {"name": name, "samples": samples, "elites": elites}
    try:
        schema = OmegaConf.structured(PLANNERS[name][1])
        merged = OmegaConf.merge(schema, {**shared, **sizes}, OmegaConf.from_dotlist(own))
        settings = cast(PlannerConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise UserError(f"planner {planner}: {first_line(error)}") from error
    check(settings, "planner.")
    return settings


@torch.no_grad()
def compare(
    experiment: Experiment, planners: list[tuple[str, Planner]], episodes: int, repeats: int
) -> Iterator[Row]:
    tasks = len(experiment.sequence)
    for name, planner in planners:
        evaluator = experiment.evaluator(planner)
        scores = [
            [_score(experiment, evaluator, task, episodes, key) for task in range(tasks)]
            for key in range(repeats)
        ]
        evaluator.close()
        yield Row(
            name,
            planner.config.samples,
            planner.config.elites,
            [[score.success for score in row] for row in scores],
            [[score.episode_return for score in row] for row in scores],
            1e3 * evaluator.plan_seconds.median(),
        )


def _score(
    experiment: Experiment, evaluator: Evaluator, task: int, episodes: int, key: int
) -> Score:
    if experiment.plans_with_simulator:
        return evaluator.evaluate_oracle(task, episodes, key=key)
    believe = {task: partial(experiment.labels.belief, task)}
    (score,) = evaluator.evaluate(believe, episodes, key)
    return score


def finished_run(run: Path, device: str) -> Experiment:
    """The parts of a run, with what it has learned.

    Raises:
        UserError: there is no such run, or it has not trained all its tasks.
    """
    experiment = open_run(run, device)
    trained = experiment.method.tasks
    if not experiment.plans_with_simulator and trained < len(experiment.sequence):
        raise UserError(f"{run} has trained {trained} tasks so far; finish it.")
    return experiment


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--planners", nargs="+", default=["cem", "icem"])
    parser.add_argument("--fractions", nargs="+", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the numbers")
    arguments = parser.parse_args()
    try:
        experiment = finished_run(arguments.run, arguments.device)
        given, bounds = experiment.config.planner, (experiment.planner.low, experiment.planner.high)
        planners = [
            (name, make_planner(sized(name, given, fraction), *bounds))
            for name in arguments.planners
            for fraction in arguments.fractions
        ]
    except (UserError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    table = Table("planner", "samples", "elites", "success", "return", "worst task", "ms a call")
    about = {"run": str(arguments.run), "git": git_revision()}
    about["machine"] = machine(experiment.device)
    rows = []
    for row in track(
        compare(experiment, planners, arguments.episodes, arguments.repeats),
        "planners",
        total=len(planners),
    ):
        rows.append(row)
        if arguments.out:
            values = {**about, "rows": [asdict(row) for row in rows]}
            write_json(arguments.out, values)
        returns = [mean(r) for r in row.episode_return]
        spread = f" ± {stdev(returns):.2f}" if len(returns) > 1 else ""
        worst = min(mean(of_task) for of_task in zip(*row.success, strict=True))
        table.add_row(
            row.planner,
            str(row.samples),
            str(row.elites),
            f"{mean(mean(r) for r in row.success):.2f}",
            f"{mean(returns):.2f}{spread}",
            f"{worst:.2f}",
            f"{row.plan_milliseconds:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
