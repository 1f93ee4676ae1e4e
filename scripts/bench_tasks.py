"""Time one update of each method against the number of tasks, at the sizes of push.

    python scripts/bench_tasks.py --device cuda --out tasks.json

Every old task is begun, shown a replay of random transitions, and ended; what is timed is a
training step of the task after them, as one CUDA graph where there is a GPU.
"""

import argparse
from pathlib import Path

import torch
from bench_timing import Clock, Report, Times, timed
from omegaconf import OmegaConf
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.base.paths import configs_dir
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods import METHODS, Batch, Method, make_method

TASKS = (1, 2, 5, 20)
COMPARED = ("hnet", "coreset", "multitask", "ewc")
TRANSITIONS = 6000
"""Of each task: what the paper's protocol on push collects."""


def make_batch(size: int, device: torch.device, seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    obs, action = torch.randn(size, 10, generator=g), torch.rand(size, 2, generator=g) * 2 - 1
    return Batch(*(t.to(device) for t in (obs, action, obs + 0.1 * action.repeat(1, 5))))


def method_in_task(name: str, tasks: int, device: torch.device) -> Method:
    """A method with its shipped settings, in the middle of its task number `tasks`."""
    settings = OmegaConf.to_container(OmegaConf.load(configs_dir() / "method" / f"{name}.yaml"))
    assert isinstance(settings, dict)
    config = METHODS[name][1](**{str(k): v for k, v in settings.items() if k != "defaults"})
    method = make_method(
        DynamicsModel(10, 2, [200, 200], probabilistic=False),
        config,
        torch.Generator().manual_seed(0),
        torch.Generator(device),
    )
    for task in range(tasks):
        method.begin_task()
        replay = make_batch(TRANSITIONS, device, seed=task)
        method.training_step(replay.at(torch.arange(100, device=device)))
        method.observe(replay)
        if task < tasks - 1:
            method.end_task(replay)
    return method


def time_of_update(method: Method, clock: Clock, device: torch.device) -> Times:
    """Wall time of a training step, waited for."""
    batch = make_batch(100, device, seed=99)

    def step(obs: Tensor, action: Tensor, next_obs: Tensor) -> tuple[Tensor, ...]:
        return tuple(method.training_step(Batch(obs, action, next_obs)).values())

    call = CapturedFunction(step, [method.sampler]) if clock.cuda else step
    for _ in range(CapturedFunction.EAGER_CALLS + 1):
        call(batch.obs, batch.action, batch.next_obs)
    return clock.eager(lambda: call(batch.obs, batch.action, batch.next_obs), repeats=50)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--methods", nargs="+", default=COMPARED, choices=METHODS)
    parser.add_argument("--out", type=Path, help="JSON file for all rows")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock, report = Clock(device), Report()
    for name in arguments.methods:
        for tasks in TASKS:

            def run(name: str = name, tasks: int = tasks) -> dict[str, float]:
                method = method_in_task(name, tasks, device)
                times = time_of_update(method, clock, device)
                return timed(times, memory_bytes=method.memory_bytes())

            report.attempt(name, "update", f"{tasks} tasks", run)
    print(f"\n{'median ms':14}" + "".join(f"{t:>4} tasks" for t in TASKS) + "   20 / 2")
    for name in arguments.methods:
        rows = [report.best(name, "update", f"{t} tasks") for t in TASKS]
        medians = [row["median_us"] / 1e3 if row else float("nan") for row in rows]
        shown = "".join(f"{value:10.2f}" for value in medians)
        print(f"{name:14}{shown}{medians[-1] / medians[1]:9.2f}")
    if arguments.out:
        report.write(arguments.out, device)


if __name__ == "__main__":
    main()
