"""Control steps per second of every task under random actions, on one core.

    python scripts/bench_envs.py [--seconds 1] [--rounds 5]

panda-gym's PandaPush is measured beside them where it is installed (extra `bench`).
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from hypercrl_envs import make_task

SPECS: list[dict[str, Any]] = [
    {"task": "push"},
    {"task": "slide"},
    {"task": "door", "handle": "pull"},
    {"task": "door", "handle": "lever"},
    {"task": "door", "handle": "round"},
    {"task": "cheetah"},
]
BULLET_SPECS = [{**spec, "engine": "bullet"} for spec in SPECS if spec["task"] in ("push", "door")]

PEER = "panda-gym: PandaPush-v3"


def environments() -> Iterator[tuple[str, gymnasium.Env]]:
    """(name, environment) of all that can be measured here."""
    for spec in SPECS + (BULLET_SPECS if importlib.util.find_spec("pybullet") else []):
        task = make_task(**spec)
        yield f"{spec.get('engine', 'mujoco')}: {task.caption}", task
    try:
        importlib.import_module("panda_gym")
    except ImportError as error:
        print(f"left out: {PEER} ({error}): pip install 'hypercrl[bench]'")
    else:
        yield PEER, gymnasium.make("PandaPush-v3")


def steps_per_second(env: gymnasium.Env, seconds: float) -> float:
    """Control steps per second of wall time, resets included."""
    space = env.action_space
    assert isinstance(space, gymnasium.spaces.Box)
    actions = np.random.default_rng(0).uniform(space.low, space.high, (1000, *space.shape))
    actions = actions.astype(space.dtype)
    env.reset(seed=0)
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        *_, terminated, truncated, _ = env.step(actions[steps % len(actions)])
        steps += 1
        if terminated or truncated:
            env.reset()
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="per environment and round")
    parser.add_argument("--rounds", type=int, default=5, help="the fastest one counts")
    arguments = parser.parse_args()
    made = dict(environments())
    if importlib.util.find_spec("pybullet") is None:
        print("left out, since pybullet is not installed: pip install 'hypercrl[bullet]'")
    # By turns: other programs on the machine slow all of them alike.
    rounds = [
        {name: steps_per_second(env, arguments.seconds) for name, env in made.items()}
        for _ in range(arguments.rounds)
    ]
    best = {name: max(r[name] for r in rounds) for name in made}
    for name, speed in best.items():
        beside = f"{speed / best[PEER]:6.2f} × {PEER}" if PEER in best else ""
        print(f"{speed:8.0f} steps/s  {beside}  {name}")
    for env in made.values():
        env.close()


if __name__ == "__main__":
    main()
