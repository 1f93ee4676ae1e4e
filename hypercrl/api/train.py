"""Training from Python: the settings of the command line, and what a run came to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hypercrl.api.agent import TrainedAgent, load
from hypercrl.base.errors import UserError
from hypercrl.base.progress import Progress
from hypercrl.config.compose import composed
from hypercrl.config.messages import explained
from hypercrl.config.overrides import setting
from hypercrl.metrics import average_performance, can_succeed
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.run import Run, begun, resumed


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run came to.

    Matrices are [N + 1, N] for N tasks: row i is after training of task i, row 0 untrained, and
    column j is the score on task j + 1. What is not a number in result.json is NaN.

    Attributes:
        run_dir: the run's folder.
        values: all of result.json.
    """

    run_dir: Path
    values: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, run: str | Path) -> "TrainingResult":
        """The result of a run that has ended.

        Raises:
            UserError: there is no run, or it has not ended.
        """
        folder = RunFolder.open(Path(run))
        if not folder.result_path.is_file():
            raise UserError(f"{run} has not ended; go on with it: hypercrl.train(resume={run!r})")
        return cls(folder.path, json.loads(folder.result_path.read_text(encoding="utf-8")))

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks' captions, N of them."""
        return tuple(self.values["tasks"])

    @property
    def success(self) -> np.ndarray:
        """Share of the episodes that ended in success, [N + 1, N]."""
        return _matrix(self.values["success"])

    @property
    def returns(self) -> np.ndarray:
        """Mean return of the episodes, [N + 1, N]."""
        return _matrix(self.values["scores"])

    @property
    def prediction_error(self) -> np.ndarray:
        """Error of the model on held-out data, [N + 1, N], in observation units."""
        return _matrix(self.values["prediction_error"])

    @property
    def final_success(self) -> float:
        """Mean success in the end over the tasks in which there can be any; NaN if in none.

        A task without a `distance` calls nothing success; its return tells how good agents are.
        """
        distance = self.values.get("goal_distance", self.values["scores"])
        return average_performance(self.success, can_succeed(self.success, distance))

    @property
    def final_return(self) -> float:
        """Mean return over all tasks in the end."""
        return float(self.returns[-1].mean())

    def agent(self, task: int = 1, *, device: str = "cpu", seed: int = 0) -> TrainedAgent:
        """The trained agent, to act in task `task`, from 1; see `hypercrl.load`."""
        return load(self.run_dir, task, device=device, seed=seed)


def train(
    *,
    env: str | Mapping[str, Any] | None = None,
    method: str | Mapping[str, Any] | None = None,
    preset: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    trust: bool = False,
    verbose: bool = False,
    overrides: Mapping[str, Any] | None = None,
    **settings: Any,
) -> TrainingResult:
    """Train an agent on a sequence of tasks, or go on with a run, as `hypercrl train` does.

    What is left out, or None, is as on the command line. Nested settings are mappings or dotted
    keys, and the same in `overrides`, where None is the null of the command line:

        hypercrl.train(env="push", planner={"samples": 100}, overrides={"protocol.num_tasks": None})

    The report with its figures is left to `hypercrl report DIR`.

    Args:
        env, method, preset: a choice, `hypercrl train --help` lists them; or settings of the
            default one.
        seed: of everything.
        device: cpu, cuda, cuda:1 or auto.
        run_dir: a new folder; by default a dated one under runs/train.
        resume: folder of a run to go on with; only `device`, `trust` and `verbose` may be given
            beside it.
        trust: import code that this run names even where a stranger wrote it (SECURITY.md).
        verbose: show progress on standard output.
        overrides: any other settings; they win over those before.
        settings: any other settings, such as memory="gru" or **{"planner.samples": 100}.

    Raises:
        UserError: a setting that there is not or that cannot be, a folder that is used already, or
            a run that cannot go on; the message says what to do.
    """
    named = {"env": env, "method": method, "preset": preset, "seed": seed, "run_dir": run_dir}
    given = {key: value for key, value in named.items() if value is not None}
    given |= {**settings, **(overrides or {})}
    if resume is not None:
        if given:
            raise UserError(
                "resume= goes on with the configuration the run was started with; leave out "
                f"{', '.join(given)} (only device= may be given beside it)."
            )
        with resumed(Path(resume), device, trust=trust) as run:
            return _finish(run, verbose)
    if device is not None:
        given = {"device": device, **given}
    config = composed("train", [setting(key, value) for key, value in given.items()])
    if config.resume is not None:
        raise UserError("give resume= as an argument of its own.")
    if not config.run_dir:
        raise UserError("run_dir= is a folder; left out, it is a dated one under runs/train.")
    with explained("train"), begun(config, Path(config.run_dir)) as run:
        return _finish(run, verbose)


def _finish(run: Run, verbose: bool) -> TrainingResult:
    with Progress(Console(quiet=not verbose), len(run.experiment.sequence)) as progress:
        run.finish(progress)
    return TrainingResult.read(run.folder.path)


def _matrix(rows: list[list[float | None]]) -> np.ndarray:
    return np.array(rows, float)
