"""The tasks as the sequences of the project order them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from hypercrl_envs import Task, make_task

DENSITY_PAIRS = [
    (500, 500),
    (100, 500),
    (500, 100),
    (250, 500),
    (500, 250),
    (1000, 100),
    (100, 1000),
    (300, 1000),
    (1000, 300),
    (1000, 1000),
]
FRAMES: list[dict[str, Any]] = [{"frame": 90}, {"frame": -90}, {"frame": 180}, {"flip_y": True}]
PUSH_PARAMETERS: list[dict[str, Any]] = [{"densities": pair} for pair in DENSITY_PAIRS] + FRAMES
DOORS: list[dict[str, Any]] = [
    {"handle": "pull"},
    {"handle": "lever", "turn": 1},
    {"handle": "lever", "turn": -1},
    {"handle": "lever", "turn": 1, "mirrored": True},
    {"handle": "lever", "turn": -1, "mirrored": True},
    {"handle": "round", "turn": 1},
    {"handle": "round", "turn": -1},
]
FRICTIONS = [0.07, 0.2, 0.025, 0.12, 0.04]

CONTRACT_SPECS: list[dict[str, Any]] = [
    {"task": "push", "densities": (100, 500)},
    {"task": "slide", "friction": 0.07},
    {"task": "workbench", "goal": "lever"},
    {"task": "door", "handle": "pull"},
    {"task": "door", "handle": "lever", "turn": -1},
    {"task": "cheetah", "body": "thigh"},
    {"task": "push", "densities": ((100, 1000), 500), "frame": (-90, 90), "told": True},
    {"task": "door", "handle": ("pull", "lever"), "turn": (1, -1), "told": True},
    {"task": "cheetah", "becomes": ("leg", "foot"), "told": True},
    {"task": "cheetah", "reversed_joints": ("bthigh", "fshin")},
    {"task": "cartpole", "reversed_motor": True},
    {"task": "double_integrator", "reversed_axes": ("y",), "mass": 0.5, "friction": 1.0},
    {"task": "double_integrator", "drawn": True},
    {"task": "complex_ode", "coefficients": (5.0, -5.0)},
    {
        "task": "gym",
        "id": "Reacher-v5",
        "reward": "hypercrl_envs.gym_rewards:reacher",
        "distance": "hypercrl_envs.gym_rewards:reacher_distance",
        "solved_within": 0.05,
    },
    {
        "task": "gym",
        "id": "Reacher-v5",
        "distance": "hypercrl_envs.gym_rewards:reacher_distance",
        "solved_within": 0.05,
    },
    {
        "task": "gym",
        "id": "Pusher-v5",
        "reward": "hypercrl_envs.gym_rewards:pusher",
        "distance": "hypercrl_envs.gym_rewards:pusher_distance",
        "solved_within": 0.05,
    },
]
"""One task of each kind: everything in `test_task_contract.py` holds for all of them."""

BULLET_SPECS: list[dict[str, Any]] = [
    {"task": "push", "engine": "bullet", "densities": (100, 500)},
    {"task": "door", "engine": "bullet", "handle": "lever", "turn": -1},
]
WITHOUT_CAMERAS = ("gym", "double_integrator", "complex_ode")
SIMULATED = [spec for spec in CONTRACT_SPECS if spec["task"] not in WITHOUT_CAMERAS]
IN_BULLET = [pytest.param(spec, marks=pytest.mark.bullet) for spec in BULLET_SPECS]
ENGINES = ["mujoco", pytest.param("bullet", marks=pytest.mark.bullet)]


def describe(spec: dict[str, Any]) -> str:
    return "-".join(str(value) for value in spec.values() if "gym_rewards" not in str(value))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "densities" in metafunc.fixturenames:
        metafunc.parametrize("densities", DENSITY_PAIRS, ids=str)
    if "parameters" in metafunc.fixturenames:
        metafunc.parametrize("parameters", PUSH_PARAMETERS, ids=str)
    if "friction" in metafunc.fixturenames:
        metafunc.parametrize("friction", FRICTIONS)
    if "door" in metafunc.fixturenames:
        metafunc.parametrize("door", DOORS, ids=describe)
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", ENGINES)
    if "simulated" in metafunc.fixturenames:
        metafunc.parametrize("simulated", [*SIMULATED, *IN_BULLET], ids=describe)
    if "every_kind" in metafunc.fixturenames:
        kinds = [CONTRACT_SPECS, pytest.param(BULLET_SPECS, marks=pytest.mark.bullet)]
        metafunc.parametrize("every_kind", kinds, ids=["mujoco and gymnasium", "bullet"])
    if "spec" in metafunc.fixturenames:
        metafunc.parametrize("spec", [*CONTRACT_SPECS, *IN_BULLET], ids=describe)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def task(spec: dict[str, Any]) -> Iterator[Task]:
    task = make_task(**spec)
    task.reset(seed=0)
    yield task
    task.close()
