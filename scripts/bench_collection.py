"""Steps a second that robots collect, planned for and stored, by how many act at once.

    python scripts/bench_collection.py [--env push] [--robots 1 2 4 8 16] [--simulators N]
        [--device cuda] [--steps 2000] [--out FILE.json]

The planner is that of `preset=paper`, the model an untrained one. With one robot it is stepped in
this process, as in training. First it is checked that robots in other processes move as robots in
this one do.
"""

import argparse
import os
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf

from hypercrl.base.cores import cores
from hypercrl.base.strict_json import write_json
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.training.actor import Actor
from hypercrl.training.experiment import Experiment, build
from hypercrl.training.learner import Learner
from hypercrl.training.tallies import Tallies
from hypercrl_envs import Fleet, SpreadFleet, Task


def experiment(
    env: str, robots: int, processes: int, device: str, more: Sequence[str] = ()
) -> Experiment:
    words = [
        *(f"env={env}", "method=hnet", "preset=paper", f"device={device}", "threads=1"),
        f"protocol.robots={robots}",
        f"simulators={processes}",
        f"protocol.random_steps={20 * robots}",
        f"protocol.planned_steps={20 * robots}",
        *more,
    ]
    return build(cast(TrainConfig, OmegaConf.to_object(composed("train", words))))


def begun(parts: Experiment, fleet: Fleet) -> Actor:
    """Robots in the first task, with the scales of a few random steps to plan with."""
    learner = Learner(parts)
    learner.begin_task()
    actor = Actor(parts, fleet, 0, learner, Tallies())
    actor.begin(lingering=0.0)
    for _ in range(20):
        step(actor, planned=False)
    learner.fit_normalisers()
    actor.inform()
    return actor


def step(actor: Actor, planned: bool) -> None:
    actor.act(planned)
    actor.begin_anew(lingering=0.0)


def processor_seconds(task: Task) -> tuple[int, float]:  # noqa: ARG001, a call of a robot
    """Of the process that steps this robot: its number, and what it has taken of a processor."""
    return os.getpid(), time.process_time()


def moved(env: str, processes: int) -> torch.Tensor:
    """Where three robots are after twenty random steps."""
    parts = experiment(env, 3, processes, "cpu")
    with closing(parts.fleet()) as fleet:
        return begun(parts, fleet).obs


def messages(fleet: Fleet) -> tuple[int, int]:
    """Between this process and others so far, and their bytes."""
    return (fleet.messages, fleet.bytes) if isinstance(fleet, SpreadFleet) else (0, 0)


def measure(env: str, robots: int, processes: int, device: str, steps: int) -> dict[str, Any]:
    parts = experiment(env, robots, 1 if robots == 1 else processes, device)
    with closing(parts.fleet()) as fleet:
        actor = begun(parts, fleet)
        for _ in range(30):
            step(actor, planned=True)
        actor.tallies.seconds.clear()
        before, worked = messages(fleet), time.process_time()
        rounds, started = max(steps // robots, 30), time.perf_counter()
        for _ in range(rounds):
            step(actor, planned=True)
        seconds, worked = time.perf_counter() - started, time.process_time() - worked
        sent = [after - own for after, own in zip(messages(fleet), before, strict=True)]
    return {
        "robots": robots,
        "processes": fleet.width,
        "steps_per_second": robots * rounds / seconds,
        "round_ms": 1e3 * seconds / rounds,
        "own_processor_ms": 1e3 * worked / rounds,
        "messages": sent[0] / rounds,
        "bytes": sent[1] / rounds,
        **{f"{what}_ms": 1e3 * spent / rounds for what, spent in actor.tallies.seconds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", default="push")
    parser.add_argument("--robots", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--simulators", type=int, default=cores())
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    alike = torch.equal(moved(given.env, processes=1), moved(given.env, processes=2))
    assert alike, "robots of other processes move otherwise"
    rows = []
    for robots in given.robots:
        processes = min(robots, given.simulators)
        rows.append(row := measure(given.env, robots, processes, given.device, given.steps))
        ratio = row["steps_per_second"] / rows[0]["steps_per_second"]
        print(*(f"{k} {v:.3g}" for k, v in row.items()), f"ratio {ratio:.2f}", sep="  ", flush=True)
    if given.out:
        write_json(given.out, {"env": given.env, "device": given.device, "rows": rows}, indent=2)


if __name__ == "__main__":
    main()
