"""What becomes of alarms of task inference, and of two other ways to settle them, on errors as
recorded.

    python scripts/alarms.py record FILE.json [SETTING=VALUE ...]     # one run, added to FILE
    python scripts/alarms.py replay FILE.json [--draws 20]

*record* trains one task with `task_id=inferred`, and keeps the squared errors of its planned steps
once its model has settled: of a right model, since there is no other task (a second one that a
false alarm begins is as right). *replay* draws stretches from them, an episode at a time: 500 steps
in which errors fall from K times theirs, as a model learns; 700 in which it is right; and then
another task, in which the model errs f times as much, and learns to err as before within 300 steps
unless the agent is suspicious. Counted are false changes and boundaries that are missed for 600
steps, by how the alarm came about: S is the sum of squares, L that of logarithms. *by logarithms*
lets a doubt be confirmed by its mean logarithm as well, `LASTING` above what is typical. A change's
strange steps are those of the doubt, which begins with S; *L too* has it begin with either.
"""

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hypercrl.agent import inferred_labels
from hypercrl.agent.task_inference import LASTING, Change, InferenceConfig, TaskInference
from hypercrl.base.strict_json import write_json
from hypercrl.cli import main as hypercrl
from hypercrl.training.result import git_revision

RUN = (
    *("method=hnet", "preset=quick", "device=cpu", "threads=1", "task_id=inferred", "logger=[]"),
    *("protocol.num_tasks=1", "protocol.eval_every=100000", "protocol.final_episodes=1"),
    *("protocol.heldout_episodes=1", "planner.samples=64", "planner.iterations=3"),
    *("planner.horizon=15", "planner.elites=6"),
)
EPISODE = 60
LEARNS, RIGHT, WRONG = 500, 700, 600
FORGETS = 300
"""Steps in which a wrong model has learned the new task over its own."""


class Recording(TaskInference):
    """Keeps the present model's squared errors."""

    kept: list[float] = []  # noqa: RUF012

    def step(self, squares: Any) -> Change | None:
        if self.learned >= self.config.settle:
            Recording.kept.append(float(f"{squares[self.current]:.4g}"))
        return super().step(squares)


class Replayed(TaskInference):
    """The rule, or one that goes by logarithms too; notes how alarms came about and ended."""

    def __init__(self, by_logarithms: bool) -> None:
        super().__init__(InferenceConfig())
        self.by_logarithms = by_logarithms
        self.ends: list[str] = []
        self.kind = ""
        self.both = 0
        self.begin_new()

    def step(self, squares: Any) -> Change | None:
        before = self.alarmed
        change = super().step(squares)
        if self.alarmed == 1 and not before:
            summed = "S" if self.sum > self.config.alarm else "L, S > 0" if self.sum else "L, S = 0"
            self.kind = summed
        if change is not None or (before and not self.alarmed):
            self.ends.append(f"{self.kind}: {'change' if change else 'stay'}")
        self.both = self.both + 1 if self.doubts or self.lasting else 0
        return change

    def _judge_doubt(self) -> Change | None:
        lasting = self.logarithms / self.doubt - self.typical[self.current] > LASTING
        if self.by_logarithms and lasting:
            return Change(self.known, self.doubt)
        return super()._judge_doubt()


@dataclass
class Stretch:
    """What came of one.

    Attributes:
        false: changes while the model was right; ends: of alarms then, and of those afterwards.
        late: steps from the boundary to the change, None: it was missed.
        left: of them, those that are not strange; taken: strange ones of before; both by the rule
            and where the doubt begins with either sum. Of a boundary that was noticed.
        usual: of the other task's episodes, those that count as usual, by the same.
    """

    false: int
    ends: list[str]
    late: int | None
    kind: str
    left: tuple[int, int] = (0, 0)
    taken: tuple[int, int] = (0, 0)
    usual: tuple[int, int] = (0, 0)


def lived(
    rule: Replayed, errors: np.ndarray, draw: np.random.Generator, k: float, f: float
) -> Stretch:
    """Live through a stretch of errors drawn from those of a run."""

    def drawn(steps: int) -> np.ndarray:
        starts = draw.integers(0, len(errors) - EPISODE, -(-steps // EPISODE))
        return np.concatenate([errors[s : s + EPISODE] for s in starts])[:steps]

    for step, error in enumerate(drawn(LEARNS)):
        rule.step([error * k ** (1 - step / LEARNS)])
    false = 0
    for error in drawn(RIGHT):
        if rule.step([error]) is not None:
            false += 1
            rule.go_back(0)
    ends, rule.ends = rule.ends, []
    beyond, usual = log(f), [0, 0]
    for step, error in enumerate(drawn(WRONG), 1):
        change = rule.step([error * exp(beyond)])
        if change is not None:
            lengths = change.strange, rule.both
            left, taken = ([max(0, sign * (step - n)) for n in lengths] for sign in (1, -1))
            of_both = (left[0], left[1]), (taken[0], taken[1]), (usual[0], usual[1])
            return Stretch(false, ends, step, rule.kind, *of_both)
        if not rule.suspicious:
            beyond = max(0.0, beyond - log(f) / FORGETS)
        for way, doubted in enumerate((rule.doubts, rule.both)):
            if not doubted:
                usual[way] = step // EPISODE
    return Stretch(false, ends, None, "")


def record(file: Path, words: list[str]) -> None:
    inferred_labels.TaskInference = Recording
    with TemporaryDirectory() as folder:
        hypercrl(["train", *RUN, *words, f"run_dir={folder}/run"])
    runs = json.loads(file.read_text())["runs"] if file.exists() else []
    runs.append({"settings": words, "errors": Recording.kept})
    write_json(file, {"runs": runs, "git": git_revision()})


def replay(file: Path, draws: int) -> None:
    runs = [np.array(run["errors"]) for run in json.loads(file.read_text())["runs"]]
    console = Console(width=200)
    outcomes = Table(title=f"{len(runs) * draws} stretches each, of {len(runs)} runs")
    for column in ("K", "f", "doubts confirmed", "false changes", "missed", "late, median"):
        outcomes.add_column(column)
    outcomes.add_column("alarms of a right model, and how they ended")
    strange = Table(
        title="steps and episodes of what was noticed; in the mean, as it is, and L too"
    )
    for column in ("K", "f", "alarm", "noticed", "left in", "right ones taken", "counted as usual"):
        strange.add_column(column)
    for k in (1, 30, 100):
        for f in (3, 6, 12, 30):
            for by_logarithms in (False, True):
                draw = np.random.default_rng(0)
                found = [
                    lived(Replayed(by_logarithms), errors, draw, k, f)
                    for errors in runs
                    for _ in range(draws)
                ]
                noticed = [each for each in found if each.late is not None]
                ends = Counter(end for each in found for end in each.ends)
                how = "by logarithms too" if by_logarithms else "as it is"
                false = sum(each.false for each in found) / len(found)
                late = np.median([each.late for each in noticed if each.late is not None])
                missed = 1 - len(noticed) / len(found)
                said = ", ".join(f"{end} {count}" for end, count in sorted(ends.items()))
                outcomes.add_row(
                    f"{k}", f"{f}", how, f"{false:.3f}", f"{missed:.3f}", f"{late:.0f}", said
                )
                if by_logarithms:
                    continue
                for kind in sorted({each.kind for each in noticed}):
                    of_it = [each for each in noticed if each.kind == kind]
                    means = (
                        " ".join(f"{x:.2f}" for x in np.mean([getattr(e, part) for e in of_it], 0))
                        for part in ("left", "taken", "usual")
                    )
                    strange.add_row(f"{k}", f"{f}", kind, f"{len(of_it)}", *means)
    console.print(outcomes, strange)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("do", choices=("record", "replay"))
    parser.add_argument("file", type=Path)
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="of a run to record")
    parser.add_argument("--draws", type=int, default=20, help="stretches of each run")
    given = parser.parse_args()
    if given.do == "record":
        record(given.file, given.settings)
    else:
        replay(given.file, given.draws)


if __name__ == "__main__":
    main()
