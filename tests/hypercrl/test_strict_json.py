"""What the program writes as JSON is JSON, for readers that know no NaN."""

import json
import math

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hypercrl.cli import main
from hypercrl.report.runs import load_run
from hypercrl.strict_json import to_json

RUN = (
    "env=gymnasium_learned", "method=finetune", "preset=smoke", "device=cpu",
    "protocol.random_steps=60", "protocol.planned_steps=30", "protocol.prediction_horizon=5",
    "protocol.final_episodes=1", "planner.samples=10", "planner.elites=4",
    "env.tasks=[{task: gym, id: Reacher-v5}]",
)  # fmt: skip


def strictly(text):
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_no_number_is_null():
    values = {"a": math.nan, "b": [1.5, math.inf, (np.float64("-inf"), True, None)], "c": "NaN"}
    assert strictly(to_json(values)) == {
        "a": None,
        "b": [1.5, None, [None, True, None]],
        "c": "NaN",
    }
    with pytest.raises(TypeError):
        to_json({"a": object()})


def test_an_environment_without_a_distance_leaves_json(tmp_path):
    """Its goal distance is not a number."""
    path = tmp_path / "run"
    main(["train", *RUN, f"run_dir={path}"])
    result = strictly((path / "result.json").read_text())
    assert result["goal_distance"] == [[None], [None]]
    records = [strictly(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert {r["goal_distance"] for r in records if r["kind"] == "eval"} == {None}
    run = load_run(path)
    assert all(map(math.isnan, run.evaluations("goal_distance", 1).values()))
    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    assert "task_1/return" in events.Tags()["scalars"]
    assert "task_1/goal_distance" not in events.Tags()["scalars"]
