"""The delta rules cut into four kernels against the recurrence: on a GPU, or interpreted."""

import pytest
import torch
from memory_cases import CASES, make
from test_memory_kernels import check

NAMES = ["DeltaNet", "gated DeltaNet", "error before decay"]
OFFSETS = [0, 0, 17, 18, 18, 90, 218]


@pytest.fixture(autouse=True)
def split(monkeypatch):
    """What a kernel does not write is not a number, and float32 and single chunks come here too."""
    from hypercrl_kernels.memory.chunk_memory import split_launch
    from hypercrl_kernels.memory.chunk_memory.launch import Launch

    unwritten = split_launch.unwritten

    def filled(*arguments):
        return [x if x is None else x.fill_(torch.nan) for x in unwritten(*arguments)]

    launch = Launch(split_launch.CHUNK, 4, block=16)
    every = split_launch.Split(128, launch, launch, launch, launch)
    monkeypatch.setattr(split_launch, "unwritten", filled)
    monkeypatch.setattr(split_launch, "choose_split", lambda p: every)


@pytest.mark.parametrize("length", [1, 64, 130])
@pytest.mark.parametrize("name", NAMES)
def test_equal_the_recurrence(name, length, device):
    check(name, *make(CASES[name], 1, length, heads=2, keys=20, values=18), None, device)


@pytest.mark.parametrize("name", NAMES)
def test_take_segments(name, device):
    x, state = make(CASES[name], 1, OFFSETS[-1], heads=1, offsets=OFFSETS)
    check(name, x, state, torch.tensor(OFFSETS), device)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_state(name, device):
    x, _ = make(CASES[name], 2, 70, heads=1)
    check(name, x, None, None, device)


@pytest.mark.parametrize("gate", [0.0, -20.0, -200.0, -torch.inf])
@pytest.mark.parametrize("name", NAMES[1:])
def test_gates_from_open_to_shut(name, gate, device):
    """In half precision, which is all that is launched so: sums of gates are one number here."""
    x, state = make(CASES[name], 1, 70, heads=1)
    x["log_decay"] = torch.full_like(x["log_decay"], gate)
    x["log_decay"][:, ::3] = -0.1
    x["beta"] = 0.3 * x["beta"]
    check(name, x, state, None, device, 2e-3, torch.float16)
