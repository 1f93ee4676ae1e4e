"""Whatever a run counts is in its checkpoints."""

import json
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import numpy as np
import pytest

from hypercrl.agent.task_inference import Decision
from hypercrl.runs.checkpoint import load_checkpoint, read_part, save_checkpoint
from hypercrl.training.durations import Durations
from hypercrl.training.evaluation import QUANTITIES
from hypercrl.training.tallies import Tallies

EXAMPLES: dict[Any, Any] = {
    int: 7,
    list[int]: [3, 1],
    list[float]: [0.1, float("inf")],
    Durations: Durations({-3: 2, 40: 1}),
    dict[str, float]: {"update": 0.3, "plan": 2.0},
    dict[str, list[list[float]]]: {"success": [[0.0, 0.5], [1.0, 0.0]], "goal_distance": []},
    list[Decision]: [Decision(120, 1, 0, False), Decision(250, 2, 2, True)],
}
"""One for each type of a field; not what it is in a new run."""


@dataclass
class Fall:
    env_step: int
    height: float


@dataclass
class MoreTallies(Tallies):
    """As somebody would add what else is to be counted."""

    resets: int = 0
    falls: list[Fall] = field(default_factory=list)


def filled(kind: type[Tallies]) -> Tallies:
    examples = {**EXAMPLES, list[Fall]: [Fall(9, 0.25)]}
    types = get_type_hints(kind)
    return kind(**{each.name: deepcopy(examples[types[each.name]]) for each in fields(kind)})


def through_a_checkpoint(tallies: Tallies, path) -> Tallies:
    save_checkpoint(path, {"tallies": tallies.state()})
    loaded = type(tallies)()
    loaded.load_state(load_checkpoint(path)["tallies"])
    return loaded


@pytest.mark.parametrize("kind", [Tallies, MoreTallies])
def test_every_field_survives_a_checkpoint(kind, tmp_path):
    saved, new = filled(kind), kind()
    assert all(getattr(saved, each.name) != getattr(new, each.name) for each in fields(kind))
    assert through_a_checkpoint(saved, tmp_path / "c.safetensors") == saved


@pytest.mark.parametrize("name", [each.name for each in fields(MoreTallies)])
def test_a_field_that_was_not_saved_is_not_taken_for_zero(name):
    state = filled(MoreTallies).state()
    del state[name]
    with pytest.raises(KeyError, match=name):
        MoreTallies().load_state(state)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("updates", 7.5),
        ("updates", True),
        ("memory_bytes", 3),
        ("training_seconds", ["0.1"]),
        ("matrix", {"success": [0.0]}),
        ("plan_seconds", {"counts": [1]}),
        ("decisions", [{"env_steps": 120}]),
        ("decisions", None),
    ],
)
def test_a_field_of_another_type_is_not_taken(name, value):
    with pytest.raises((KeyError, ValueError)):
        MoreTallies().load_state({**filled(MoreTallies).state(), name: value})


@pytest.mark.parametrize("value", [np.zeros(3), np.zeros((2, 2), np.float32), np.array([["a"]])])
def test_an_array_that_is_no_matrix_is_not_taken(value):
    with pytest.raises(ValueError, match="success"):
        Tallies().load_state({**filled(Tallies).state(), "matrix": {"success": value}})


def test_matrices_of_older_runs_are_lists(tmp_path):
    tallies = filled(Tallies)
    loaded = Tallies()
    loaded.load_state({**tallies.state(), "matrix": deepcopy(tallies.matrix)})
    assert loaded == tallies


def test_a_checkpoint_of_many_tasks_holds_no_list_of_their_numbers(tmp_path):
    """By count, as times depend on what else runs: all of them but the matrices' are as many as
    those of two tasks."""

    def stored(tasks):
        matrix = {name: [[0.5] * tasks for _ in range(tasks + 1)] for name in QUANTITIES}
        matrix["goal_distance"][-1][0] = float("nan")
        tallies = Tallies(matrix=matrix)
        save_checkpoint(tmp_path / f"{tasks}", {"tallies": tallies.state()})
        np.testing.assert_equal(through_a_checkpoint(tallies, tmp_path / "again").matrix, matrix)
        return len(json.dumps(read_part(tmp_path / f"{tasks}", "tallies")))

    assert stored(200) == stored(2)


def test_what_is_counted_after_a_checkpoint_is_not_in_it():
    tallies = filled(Tallies)
    state = tallies.state()
    tallies.plan_seconds.add(0.2)
    tallies.matrix["success"][0].append(1.0)
    tallies.boundaries.append(300)
    tallies.spend("update", 1.0)
    loaded = Tallies()
    loaded.load_state(state)
    assert loaded == filled(Tallies)
