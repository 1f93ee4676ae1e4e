"""Whatever a run counts is in its checkpoints."""

from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

import pytest

from hypercrl.metrics import Decision
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.training.durations import Durations
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
