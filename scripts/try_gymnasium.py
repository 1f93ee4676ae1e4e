"""Other people's environments in short runs: what is observed, what ends, and what comes of it.

Each environment is first stepped at random, by its task and by Gymnasium itself with the same seed
and actions: return and length have to agree. Then `method=single` learns it for some hundred steps
with the reward (and the end) learned, which shows that a run goes through, not that it is solved.
Whatever an environment raises is its row, and the others go on.

What an environment needs is not installed for all of them: packages want simulators of different
versions. Those that cannot be run here are named with what to install, and rows that --out has of
them stay as they are, so that the page is made by several calls, each in a virtual environment
of its own:

    pip install panda-gym highway-env Box2D gymnasium-robotics pybullet_envs_gymnasium pygame-ce
    python scripts/try_gymnasium.py --out docs/results/gymnasium
    pip install 'mujoco==3.3.0' 'dm_control==1.0.28' shimmy gymnasium-robotics metaworld
    python scripts/try_gymnasium.py --out docs/results/gymnasium --only '*mujoco<4'
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from evidence_grid import check_patterns, fits
from packaging.requirements import Requirement

import hypercrl
from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import write_json
from hypercrl.runs.run_folder import LATEST, RunFolder
from hypercrl.training.result import git_revision, machine
from hypercrl_envs import TaskFault, make_task
from hypercrl_envs.checked import told
from hypercrl_envs.task import Task

BOTH = ("gymnasium", "mujoco")
"""What all of them run with."""


@dataclass(frozen=True)
class Tried:
    """An environment of the list.

    Attributes:
        id, options: of `task: gym`.
        needs: what has to be installed beside Gymnasium and MuJoCo, as pip takes it.
    """

    id: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The id, the options, and of what it needs what is not of any version."""
        parts = [f"{key} {value}" for key, value in self.options.items()]
        return ", ".join([self.id, *parts, *(n for n in self.needs if Requirement(n).specifier)])

    def missing(self) -> list[str]:
        """What of it is not installed here."""
        return [need for need in self.needs if not _installed(Requirement(need))]

    def versions(self) -> dict[str, str]:
        """Of what it ran with here."""
        names = dict.fromkeys([*BOTH, *(Requirement(need).name for need in self.needs)])
        return {name: version(name) for name in names}


def _installed(wanted: Requirement) -> bool:
    try:
        return wanted.specifier.contains(version(wanted.name))
    except PackageNotFoundError:
        return False


def _of(names: str, *needs: str, package: str = "", **options: Any) -> list[Tried]:
    """Environments that want the same, by their names with spaces between them."""
    return [Tried(package + name, options, needs) for name in names.split()]


SHORT: dict[str, Any] = {"max_episode_steps": 100}
OLD = "mujoco<4"
ROBOTICS: dict[str, Any] = {"package": "gymnasium_robotics:"}
BULLET: dict[str, Any] = {"package": "pybullet_envs_gymnasium:", **SHORT}
DEEPMIND: dict[str, Any] = {"package": "shimmy:dm_control/", **SHORT}
WORLDS: dict[str, Any] = {"package": "metaworld:Meta-World/", **SHORT}
LIST = (
    *_of("Pendulum-v1 MountainCarContinuous-v0 InvertedPendulum-v5 InvertedDoublePendulum-v5"),
    *_of("Reacher-v5 Pusher-v5 Swimmer-v5 Hopper-v5 Walker2d-v5 Ant-v5 HalfCheetah-v5"),
    *_of("Humanoid-v5"),
    *_of("PandaReach-v3 PandaPush-v3 PandaSlide-v3", "panda-gym", package="panda_gym:"),
    *_of("PandaPickAndPlace-v3 PandaStack-v3", "panda-gym", package="panda_gym:"),
    *_of("BipedalWalker-v3 LunarLanderContinuous-v3", "Box2D", **SHORT),
    *_of("ReacherBulletEnv-v0 HopperBulletEnv-v0", "pybullet_envs_gymnasium", **BULLET),
    *_of("HalfCheetahBulletEnv-v0 AntBulletEnv-v0", "pybullet_envs_gymnasium", **BULLET),
    *_of("parking-v0", "highway-env", package="highway_env:", **SHORT),
    *_of("PointMaze_UMaze-v3 AntMaze_UMaze-v5", "gymnasium-robotics", **ROBOTICS, **SHORT),
    *_of("AdroitHandDoor-v1 AdroitHandHammer-v1", "gymnasium-robotics", **ROBOTICS, **SHORT),
    *_of("AdroitHandPen-v1 AdroitHandRelocate-v1", "gymnasium-robotics", **ROBOTICS, **SHORT),
    *_of("FetchReach-v4", "gymnasium-robotics", "mujoco>=4", **ROBOTICS),
    *_of("FetchReach-v4 FetchPush-v4 FetchSlide-v4", "gymnasium-robotics", OLD, **ROBOTICS),
    *_of("FetchPickAndPlace-v4 HandReach-v3", "gymnasium-robotics", OLD, **ROBOTICS),
    *_of("cartpole-swingup-v0", "shimmy", "dm_control", "mujoco>=4", **DEEPMIND),
    *_of("cartpole-swingup-v0 reacher-easy-v0", "shimmy", "dm_control", OLD, **DEEPMIND),
    *_of("walker-walk-v0", "shimmy", "dm_control", OLD, **DEEPMIND),
    *_of("goal_observable", "metaworld", OLD, env_name="reach-v3", seed=0, **WORLDS),
    *_of("goal_observable", "metaworld", OLD, env_name="door-open-v3", seed=0, **WORLDS),
    *_of("MT1", "metaworld", OLD, env_name="reach-v3", **WORLDS),
)
EPISODES = 5
FLOAT32 = 1e-6
"""By so much returns in float32 and float64 may differ."""
PAGE = """# Environments of Gymnasium that were tried

{ran} of {tried} ran to the end of a short run, with reward and end learned, and {same} of these
paid and ended as Gymnasium itself does. 600 steps are too few to solve anything: they show that a
run goes through.

- *O, A*: sizes of observation and action, the learned reward and end among O; *modelled*: the
  dimensions of O that moved.
- *random*: mean length and return of {episodes} episodes of random actions, and how many ended
  before their time was up.
- *task − Gymnasium*: the largest relative difference of a return from Gymnasium's own, by the same
  seed and actions, float32 against float64.
- *untrained → after 600 steps*: return of two evaluated episodes; *3-step error*: of the model, on
  held-out episodes.
- *warned of*: its seed does not determine its episodes, or not where another one has gone before,
  so that resumed runs go on otherwise.

{tables}

`python scripts/try_gymnasium.py` says what to install for each. What to know before a longer run:
[environments that were tried](../tasks.md#environments-that-were-tried).
"""
SETTINGS: dict[str, Any] = {
    "method": "single", "env": "gymnasium_learned", "preset": "smoke", "device": "cpu", "seed": 0,
    "dynamics.hidden": [64, 64], "protocol.num_tasks": 1, "protocol.random_steps": 400,
    "protocol.planned_steps": 200, "protocol.update_every": 100, "protocol.updates": 200,
    "protocol.eval_every": 1000, "protocol.eval_episodes": 2, "protocol.prediction_horizon": 3,
    "protocol.replay_capacity": 1000, "planner.horizon": 8, "protocol.checkpoint_every": 1000,
}  # fmt: skip


def random_episodes(task: Task, tried: Tried) -> dict[str, Any]:
    """Episodes of random actions: by the task, and by the environment itself, which must agree."""
    own = gymnasium.make(tried.id, disable_env_checker=True, **tried.options)
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
                raise UserError(f"ends {ends} where Gymnasium says {[terminated, truncated]}")
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


def trained(tried: Tried, folder: Path) -> dict[str, Any]:
    """A short run: returns before and after, prediction error, how many dimensions it models."""
    tasks = [{"task": "gym", "id": tried.id, "options": tried.options}]
    settings = {**SETTINGS, "env.tasks": tasks}
    result = hypercrl.train(run_dir=folder, overrides=settings).values
    tensors = RunFolder.open(folder).load_checkpoint(LATEST)["method"]["tensors"]
    (since,) = (v for k, v in tensors.items() if k.endswith("target_normaliser.since"))
    return {
        "before": result["scores"][0][0],
        "after": result["scores"][1][0],
        "error": result["prediction_error"][1][0],
        "modelled": int((since < 2**62).sum()),
        "seconds": result["seconds"],
    }


def attempt(tried: Tried) -> dict[str, Any]:
    """One row; of an environment that cannot be run, the message."""
    row: dict[str, Any] = {"name": tried.name}
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            task = make_task("gym", id=tried.id, options=tried.options)
            sizes = task.observation_space.shape + task.action_space.shape
            row |= {"sizes": sizes, "random": random_episodes(task, tried)}
            task.close()
            row["run"] = trained(tried, Path(folder) / "run")
    except (ValueError, UserError, TaskFault) as error:
        return {"name": tried.name, "message": str(error)}
    except (Exception, SystemExit) as error:
        return {"name": tried.name, "message": f"it {told(error)}"}
    said = ("goes on otherwise", "begins other episodes")
    return {**row, "warned": any(each in str(w.message) for w in warned for each in said)}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| environment | package | O, A | modelled | random: steps, return (ended) | "
        "task − Gymnasium | untrained → after 600 steps | 3-step error | warned of |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        packages = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if k not in BOTH)
        begun = f"| {row['name']} | {packages} |"
        if "message" in row:
            lines.append(f"{begun} | | {row['message']} | | | | |")
            continue
        (size, actions), random, run = row["sizes"], row["random"], row["run"]
        error = "–" if run["error"] is None else f"{run['error']:.3g}"
        warned = "yes" if row["warned"] else ""
        lines.append(
            f"{begun} {size}, {actions} | {run['modelled']} | {random['length']:.0f}, "
            f"{random['return']:.1f} ({random['ended']} of {EPISODES}) | {random['differ']:.0e} | "
            f"{run['before']:.1f} → {run['after']:.1f} | {error} | {warned} |"
        )
    return "\n".join(lines)


def page(rows: list[dict[str, Any]]) -> str:
    """What was found, what the columns are, and a table of all that ran with the same of BOTH."""
    made: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        both = ", ".join(f"{name} {row['versions'][name]}" for name in BOTH)
        made.setdefault(f"{both}; commit {row['git']}, {row['machine']}:", []).append(row)
    ran = [row for row in rows if "message" not in row]
    return PAGE.format(
        ran=len(ran),
        same=sum(row["random"]["differ"] < FLOAT32 for row in ran),
        tried=len(rows),
        episodes=EPISODES,
        tables="\n\n".join(f"{about}\n\n{table(those)}" for about, those in made.items()),
    )


def merged(kept: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the list, a new one in place of the one that was kept of its name."""
    rows = {row["name"]: row for row in [*kept, *new]}
    order = [each.name for each in LIST]
    return sorted(rows.values(), key=lambda row: order.index(row["name"]))


def save(out: Path, new: list[dict[str, Any]]) -> None:
    """Write NAME.json and NAME.md, with the rows that are in them already."""
    path = out.with_suffix(".json")
    kept = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    rows = merged(kept, new)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"rows": rows})
    out.with_suffix(".md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="*", help="patterns of names, with commas between them")
    parser.add_argument("--out", type=Path, help="write NAME.json and NAME.md, or add to them")
    given = parser.parse_args()
    about = {"git": git_revision(), "machine": machine(torch.device("cpu"))}
    check_patterns(given.only, (tried.name for tried in LIST))
    for tried in LIST:
        if not fits(tried.name, given.only):
            continue
        if missing := tried.missing():
            print(f"not installed: {tried.name}: pip install {' '.join(map(repr, missing))}")
            continue
        row = {**attempt(tried), **about, "versions": tried.versions()}
        print(table([row]).splitlines()[-1], flush=True)
        if given.out:
            save(given.out, [row])
