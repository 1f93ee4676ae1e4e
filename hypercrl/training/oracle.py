"""The upper bound of a learned model: the same planner on the same tasks with true dynamics."""

import time
from typing import Any

from hypercrl.base.progress import Progress
from hypercrl.training.evaluation import QUANTITIES, Score
from hypercrl.training.experiment import Experiment
from hypercrl.training.result import about, of_matrices
from hypercrl_envs import closed

NAME = "simulator"
"""Stands where a result names its method."""


def measure_oracle(experiment: Experiment, progress: Progress) -> dict[str, Any]:
    """Score every task with plans through the simulator; nothing is trained.

    Returns:
        What `summarise` (hypercrl/training/result.py) returns of a training: every row of the
        matrices is the same, since there is nothing to learn or to forget.
    """
    protocol, sequence = experiment.config.protocol, experiment.sequence
    evaluator = experiment.evaluator()
    started = time.perf_counter()
    scores: list[Score] = []
    with closed(evaluator):
        for task, caption in enumerate(sequence.captions):
            progress.start_task(task, caption, 1, 0)
            score = evaluator.evaluate_oracle(task, protocol.final_episodes)
            scores.append(score)
            progress.show_score(task, score.success, told=score.told)
            progress.advance(1)
    progress.finish()
    seconds = time.perf_counter() - started
    row = {name: [getattr(score, name) for score in scores] for name in QUANTITIES}
    return {
        **about(experiment),
        "method": NAME,
        **of_matrices({name: [values] * (len(sequence) + 1) for name, values in row.items()}),
        "seconds": seconds,
        "seconds_by": {"evaluation": seconds},
        "plans": len(evaluator.plan_seconds),
        "plan_milliseconds": 1e3 * evaluator.plan_seconds.median(),
        "updates": 0,
        "update_milliseconds": None,
        "env_steps": 0,
        "memory_bytes": [0] * len(sequence),
        "parameters": 0,
    }
