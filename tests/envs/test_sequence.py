"""Registry and sequences: what they make, and what their messages say."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from hypercrl_envs import TASKS, TaskSequence, make_task
from hypercrl_envs.push import PushTask

SPECS: list[dict[str, Any]] = [
    {"task": "push", "densities": [500, 500]},
    {"task": "push", "densities": [100, 500]},
    {"task": "push", "frame": 180, "flip_y": True},
]


class WidePush(PushTask):
    """A push task with one more observation."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (11,), np.float32)


def test_make_task_passes_parameters_on():
    task = make_task("push", engine="mujoco", densities=[100, 500], frame=90)
    assert isinstance(task, PushTask)
    assert task.densities == (100.0, 500.0)
    assert task.caption == "push 100 | 500 kg/m³, frame 90°"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "psh"}, r"unknown task: 'psh'; did you mean 'push'\?"),
        ({"task": 3}, r"unknown task: 3; valid: .*push"),
        ({"task": "push", "engine": "mujco"}, r"unknown engine .*'mujco'; did you mean 'mujoco'\?"),
        (
            {"task": "push", "density": [1, 2]},
            r"unknown parameter of task 'push': 'density'; did you mean 'densities'\?",
        ),
        ({"task": "push", "densities": [1, 2]}, r"densities must be two numbers from 100 to 1000"),
    ],
)
def test_make_task_names_the_nearest(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task(**arguments)


def test_sequence_makes_its_tasks_in_order():
    sequence = TaskSequence(SPECS, "three")
    assert len(sequence) == 3
    assert (sequence.observation_size, sequence.action_size) == (10, 2)
    assert sequence.captions == (
        "push 500 | 500 kg/m³",
        "push 100 | 500 kg/m³",
        "push 500 | 500 kg/m³, frame 180°, y flipped",
    )
    first, again = sequence.make(1), sequence.make(1)
    assert first is not again
    assert first.caption == sequence.captions[1]
    assert sequence.make(0, render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(IndexError, match="tasks 0 to 2, not 3"):
        sequence.make(3)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ([], "sequence 'wrong' has no tasks"),
        ([SPECS[0], {"densities": [500, 500]}], "task 1: no key 'task'"),
        ([SPECS[0], {"task": "pusch"}], "sequence 'wrong', task 1: unknown task: 'pusch'"),
        ([{"task": "push", "frames": 90}], "task 0: .*did you mean 'frame'"),
        ([{"task": "push", "render_mode": "rgb_array"}], "task 0: .*render_mode"),
    ],
)
def test_wrong_sequences_say_where(specs, message):
    with pytest.raises(ValueError, match=message):
        TaskSequence(specs, "wrong")


def test_sequence_refuses_mixed_sizes(monkeypatch):
    monkeypatch.setitem(TASKS, "wide", WidePush)
    with pytest.raises(ValueError, match=r"task 1 .* has 11 observations and 2 actions, task 0"):
        TaskSequence([{"task": "push"}, {"task": "wide"}], "mixed")
