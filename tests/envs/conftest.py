"""The push tasks as the sequences of the project order them."""

from __future__ import annotations

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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "densities" in metafunc.fixturenames:
        metafunc.parametrize("densities", DENSITY_PAIRS, ids=str)
    if "parameters" in metafunc.fixturenames:
        metafunc.parametrize("parameters", PUSH_PARAMETERS, ids=str)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def push() -> Task:
    task = make_task("push", densities=(100, 500))
    task.reset(seed=0)
    return task
