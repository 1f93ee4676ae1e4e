"""The delta rules cut into four kernels against the recurrence: on a GPU, or interpreted."""

import pytest
import torch
from memory_cases import CASES, make
from test_memory_kernels import check as check_kernels

NAMES = ["DeltaNet", "gated DeltaNet", "error before decay"]
OFFSETS = [0, 0, 17, 18, 18, 90]


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
    monkeypatch.setattr(split_launch, "choose_split", lambda *_: every)


def check(name, x, state, cu_seqlens, device):
    """In float32 where it is exact, else in what is launched so."""
    precision = (1e-5, torch.float32) if device == "cpu" else (3e-3, torch.float16)
    check_kernels(name, x, state, cu_seqlens, device, *precision)


@pytest.mark.parametrize("name", NAMES)
def test_equal_the_recurrence(name, device):
    """Keys, values and the last chunk end within a block."""
    check(name, *make(CASES[name], 1, 70, heads=1, keys=20, values=18), None, device)


def test_take_segments(device):
    x, state = make(CASES["error before decay"], 1, OFFSETS[-1], heads=2, offsets=OFFSETS)
    check("error before decay", x, state, torch.tensor(OFFSETS), device)


def test_whole_chunks_without_a_state(device):
    x, _ = make(CASES["gated DeltaNet"], 2, 64, heads=1)
    check("gated DeltaNet", x, None, None, device)


@pytest.mark.parametrize("gate", [-200.0, -torch.inf])
def test_gates_from_open_to_shut(gate, device):
    """In half precision, which is all that is launched so: sums of gates are one number here."""
    x, state = make(CASES["error before decay"], 1, 70, heads=1)
    x["log_decay"] = torch.full_like(x["log_decay"], gate)
    x["log_decay"][:, ::3] = -0.1
    x["beta"] = 0.3 * x["beta"]
    check_kernels("error before decay", x, state, None, device, 2e-3, torch.float16)
