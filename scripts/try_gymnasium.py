"""Other people's environments in short runs: what is observed, what ends, and what comes of it.

Each environment is first stepped at random, by its task and by Gymnasium itself with the same seed
and actions: return and length have to agree. Then `method=single` learns it for some hundred steps
with the reward (and the end) learned, which shows that a run goes through, not that it is solved.

    python scripts/try_gymnasium.py --out docs/results/gymnasium
"""

import argparse
import io
import json
import tempfile
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from hypercrl.base.strict_json import write_json
from hypercrl.cli import main
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.result import git_revision, machine
from hypercrl_envs import make_task
from hypercrl_envs.task import Task

IDS = (
    "Pendulum-v1", "MountainCarContinuous-v0", "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5", "Reacher-v5", "Pusher-v5", "Swimmer-v5", "Hopper-v5",
    "Walker2d-v5", "Ant-v5", "HalfCheetah-v5", "Humanoid-v5",
    "panda_gym:PandaReach-v3",
)  # fmt: skip
EPISODES = 5
PAGE = """# Environments of Gymnasium that were tried

{ran} of {tried} ran to the end of a short run, with reward and end learned, and paid and ended as
Gymnasium itself does. 600 steps are too few to solve anything: they show that a run goes through.

- *O, A*: sizes of observation and action, the learned reward and end among O; *modelled*: the
  dimensions of O that moved.
- *random*: mean length and return of {episodes} episodes of random actions, and how many ended
  before their time was up.
- *task − Gymnasium*: the largest relative difference of a return from Gymnasium's own, by the same
  seed and actions, float32 against float64.
- *untrained → after 600 steps*: return of two evaluated episodes; *3-step error*: of the model, on
  held-out episodes.

{table}

`python scripts/try_gymnasium.py`, commit {git}, {machine}. What to know before a longer run:
[environments that were tried](../tasks.md#environments-that-were-tried).
"""
SETTINGS = (
    "method=single", "env=gymnasium_learned", "preset=smoke", "device=cpu", "seed=0",
    "dynamics.hidden=[64,64]", "protocol.num_tasks=1", "protocol.random_steps=400",
    "protocol.planned_steps=200", "protocol.update_every=100", "protocol.updates=200",
    "protocol.eval_every=1000", "protocol.eval_episodes=2", "protocol.prediction_horizon=3",
    "protocol.replay_capacity=1000", "planner.horizon=8", "protocol.checkpoint_every=1000",
)  # fmt: skip


def random_episodes(task: Task, id: str) -> dict[str, Any]:
    """Episodes of random actions: by the task, and by the environment itself, which must agree."""
    own = gymnasium.make(id)
    low, high = (np.asarray(x, np.float64) for x in (own.action_space.low, own.action_space.high))  # pyright: ignore
    generator = np.random.default_rng(0)
    differ, lengths, returns, ended = 0.0, [], [], 0
    for seed in range(EPISODES):
        task.reset(seed=seed)
        own.reset(seed=int(task.get_state()["physics"][0]))
        theirs = ours = 0.0
        over = terminated = False
        steps = 0
        while not over:
            action = generator.uniform(-1, 1, task.action_space.shape).astype(np.float32)
            fine = action.astype(np.float64)
            exact = low * (0.5 - 0.5 * fine) + high * (0.5 + 0.5 * fine)
            _, paid, terminated, truncated, _ = own.step(exact.astype(own.action_space.dtype))
            _, reward, *ends, _ = task.step(action)
            if ends != [terminated, truncated]:
                raise RuntimeError(f"{id}: ends {ends} where Gymnasium says otherwise")
            theirs, ours, steps = theirs + float(paid), ours + float(reward), steps + 1
            over = terminated or truncated
        differ = max(differ, abs(ours - theirs) / max(1.0, abs(theirs)))
        lengths.append(steps)
        returns.append(theirs)
        ended += bool(terminated)
    own.close()
    return {
        "return": float(np.mean(returns)),
        "length": float(np.mean(lengths)),
        "ended": ended,
        "differ": differ,
    }


def trained(id: str, folder: Path) -> dict[str, Any]:
    """A short run: returns before and after, prediction error, how many dimensions it models."""
    with redirect_stdout(io.StringIO()):
        main(["train", *SETTINGS, f"env.tasks=[{{task: gym, id: '{id}'}}]", f"run_dir={folder}"])
    result = json.loads((folder / "result.json").read_text())
    tensors = RunFolder.open(folder).load_checkpoint(LATEST)["method"]["tensors"]
    (since,) = (v for k, v in tensors.items() if k.endswith("target_normaliser.since"))
    return {
        "before": result["scores"][0][0],
        "after": result["scores"][1][0],
        "error": result["prediction_error"][1][0],
        "modelled": int((since < 2**62).sum()),
        "seconds": result["seconds"],
    }


def attempt(id: str) -> dict[str, Any]:
    """One row; of an environment that cannot be run, the message."""
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            task = make_task("gym", id=id)
            sizes = task.observation_space.shape + task.action_space.shape
            row = {"id": id, "sizes": sizes, "random": random_episodes(task, id)}
            task.close()
            return {**row, "run": trained(id, Path(folder) / "run")}
    except (ValueError, SystemExit) as error:
        return {"id": id, "message": str(error)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| environment | O, A | modelled | random: steps, return (ended) | task − Gymnasium | "
        "untrained → after 600 steps | 3-step error |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "message" in row:
            lines.append(f"| {row['id']} | | | {row['message']} | | | |")
            continue
        (size, actions), random, run = row["sizes"], row["random"], row["run"]
        error = "–" if run["error"] is None else f"{run['error']:.3g}"
        lines.append(
            f"| {row['id']} | {size}, {actions} | {run['modelled']} | {random['length']:.0f}, "
            f"{random['return']:.1f} ({random['ended']} of {EPISODES}) | {random['differ']:.0e} | "
            f"{run['before']:.1f} → {run['after']:.1f} | {error} |"
        )
    return "\n".join(lines)


def page(rows: list[dict[str, Any]], about: dict[str, str]) -> str:
    """What was found, what the columns are, and the table."""
    ran = sum("message" not in row for row in rows)
    return PAGE.format(ran=ran, tried=len(rows), episodes=EPISODES, table=table(rows), **about)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ids", nargs="*", default=IDS)
    parser.add_argument("--out", type=Path, help="write NAME.json and NAME.md")
    given = parser.parse_args()
    rows = [attempt(id) for id in given.ids]
    print(table(rows))
    if given.out:
        about = {"git": git_revision(), "machine": machine(torch.device("cpu"))}
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(given.out.with_suffix(".json"), {**about, "rows": rows})
        given.out.with_suffix(".md").write_text(page(rows, about), encoding="utf-8")
