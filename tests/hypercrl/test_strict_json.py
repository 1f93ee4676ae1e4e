"""What the program writes as JSON is JSON, for readers that know no NaN."""

import ast
import json
import math
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hypercrl.base.strict_json import to_json, write_json
from hypercrl.cli import main
from hypercrl.report.runs import load_run

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


@pytest.mark.parametrize("folder", ["hypercrl", "scripts", "envs", "kernels"])
def test_nothing_writes_json_that_may_hold_nan(folder):
    """Every call of `json.dump` and `json.dumps` refuses it."""
    calls = [
        (path, node)
        for path in (Path(__file__).parents[2] / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("dump", "dumps")
        if isinstance(node.value, ast.Name) and node.value.id == "json"
    ]
    for path, node in calls:
        lines = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1 :][:6]
        assert "allow_nan=False" in "".join(lines), f"{path}:{node.lineno}"


def test_a_file_of_json_is_written_atomically(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"a": math.inf})
    assert path.read_text() == '{\n "a": null\n}\n'
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 2})
    assert strictly(path.read_text()) == {"a": None}


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
