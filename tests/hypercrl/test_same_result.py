"""The same settings come to the same result.json, whatever ran before in the process.

Over all methods, memories and planners that there are, with every stage of a run: random steps,
rounds of training, evaluations in the midst of a task and at its end, and a change of task.
"""

import copy
import json
from typing import cast

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from hypercrl.base.progress import Progress
from hypercrl.config.compose import composed
from hypercrl.config.overrides import setting
from hypercrl.config.schema import RecallConfig, in_groups
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS
from hypercrl.training.recall import measure_recall
from hypercrl.training.result import TIMES, repeatable
from hypercrl.training.run import begun

TASK = {"task": "gym", "id": "Reacher-v5", "reward": "hypercrl_envs.gym_rewards:reacher"}
SMALL = {
    "env": "gymnasium",
    "env.tasks": [{**TASK, "options": {"max_episode_steps": steps}} for steps in (6, 7)],
    "preset": "smoke",
    "device": "cpu",
    "seed": 7,
    "protocol": {
        "num_tasks": 2,
        "random_steps": 12,
        "planned_steps": 4,
        "update_every": 2,
        "updates": 3,
        "eval_every": 3,
        "eval_episodes": 1,
        "heldout_episodes": 1,
        "final_episodes": 1,
        "prediction_horizon": 2,
    },
    "dynamics": {"hidden": [16]},
    "planner": {"samples": 8, "horizon": 3, "iterations": 2, "elites": 3},
}
MEMORY = {"memory.width": 8, "context": {"burn_in": 3, "horizon": 2, "windows": 4}}
CHOICES = (
    *({"method": name} for name in METHODS if name != "packnet"),
    {"method": "packnet", "method.retrain_updates": 3},
    *({"memory": name, **MEMORY} for name in MEMORIES if name != "none"),
    *({"planner": name} for name in PLANNERS if name != "cem"),  # which all the others have
    {"planner.interpolation": "cubic", "planner.knots": 3, "planner.global_share": 0.3},
)


def flat(settings, above=""):
    """Dotted keys, among which a choice and settings of what is chosen can stand together."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{above}{key}.")
        else:
            yield above + key, value


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: "=".join(next(iter(c.items()))))
def test_the_same_settings_come_to_the_same_result(choice, tmp_path):
    results = []
    settings = {**dict(flat(SMALL)), **dict(flat(choice))}
    if "ftl" in choice.get("method", ""):
        del settings["dynamics.hidden"], settings["protocol.updates"]  # without an effect
    updates = settings.get("protocol.updates", 20)
    config = composed("train", [setting(key, value) for key, value in settings.items()])
    for name in ("first", "second"):
        with begun(copy.deepcopy(config), tmp_path / name) as run:
            run.finish(Progress(Console(quiet=True), 2))
        written = json.loads((tmp_path / name / "result.json").read_text())
        results.append(repeatable(written))
        assert set(TIMES) <= set(written)
    first, second = results
    assert first["updates"] == 2 * 3 * updates
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("memory", [name for name in MEMORIES if name != "none"])
def test_the_same_settings_recall_the_same(memory, tmp_path):
    words = [f"memory={memory}", "memory.width=8", "preset=smoke", "device=cpu", "steps=2"]
    config = composed("recall", in_groups("recall", [*words, f"run_dir={tmp_path}"]))
    settings = cast(RecallConfig, OmegaConf.to_object(config))
    first, second = (repeatable(measure_recall(settings)) for _ in range(2))
    assert first["loss"] > 0
    assert json.dumps(first) == json.dumps(second)
