"""The memory operations' folders: the same files in each, and examples that run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest
import torch

import hypercrl_kernels

OPERATIONS = {
    "chunk_memory": "chunk_memory",
    "chunk_gla": "chunk_gla",
    "mlp_memory": "chunk_mlp_memory",
    "based": "based",
    "scan": "scan",
    "steps": "memory_step",
}
FOLDERS = Path(hypercrl_kernels.__file__).parent / "memory"


@pytest.mark.parametrize("folder", OPERATIONS)
def test_each_folder_has_the_same_files(folder):
    files = {path.name for path in (FOLDERS / folder).glob("*.py")}
    assert {"__init__.py", "api.py", "naive.py", "launch.py"} <= files
    assert "triton.py" in files or {"forward_triton.py", "backward_triton.py"} <= files
    if folder != "steps":  # which have no chunks and no gradient
        assert {"chunked.py", "op.py"} <= files


def test_every_operation_has_a_folder():
    found = {path.parent.name for path in FOLDERS.glob("*/api.py")}
    assert found == set(OPERATIONS)


@pytest.mark.parametrize("folder", OPERATIONS)
def test_its_example_is_right(folder):
    module = import_module(f"hypercrl_kernels.memory.{folder}.api")
    assert getattr(hypercrl_kernels, OPERATIONS[folder]) is getattr(module, OPERATIONS[folder])
    failed, tried = doctest.testmod(module, extraglobs={"torch": torch})
    assert tried > 0
    assert failed == 0
