"""The memory kernels' rounding, in the interpreter with the arithmetic of a GPU's tensor cores.

The same limits as in `test_gpu_memory.py`, on shorter sequences.
"""

import pytest
import torch
from memory_cases import (
    CASES,
    ROUNDOFF,
    SEQUENCES,
    by_name,
    correlated,
    gradients,
    half_precision_limits,
    make,
    relative,
)

pytest.importorskip("triton")
if torch.cuda.is_available():
    pytest.skip("a GPU rounds by itself", allow_module_level=True)

from tensor_cores import use_tensor_cores
from test_memory_kernels import cut, kernels

DELTA_RULES = ["DeltaNet", "gated DeltaNet", "error before decay", "KDA"]
LINEAR = ["linear attention", "gated", "momentum alone", "GLA", "HGRN"]
MOMENTUM = ["Titans", "momentum, error after decay", "momentum, no decay"]


@pytest.fixture(autouse=True)
def tensor_cores(monkeypatch):
    use_tensor_cores(monkeypatch)


def errors(name, x, state, dtype):
    """Of outputs and gradients: relative errors, in half precision as shares of their limits."""
    x = {n: t.to(dtype) if n in SEQUENCES else t.float() for n, t in x.items()}
    state = [s.float() for s in state]
    exact = {n: t.double() for n, t in x.items()}, [s.double() for s in state], None
    wanted = by_name(gradients(CASES[name].fast, *exact))
    got = by_name(gradients(kernels(name, "cpu"), x, state))
    found = {key: relative(got[key], wanted[key]) for key in wanted}
    if dtype == torch.float32:
        return found
    limits = half_precision_limits(wanted, CASES[name].fast, *exact, dtype)
    return {key: found[key] / limits[key] for key in found}


@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize("name", [*LINEAR, *DELTA_RULES, *MOMENTUM])
def test_half_precision(name, dtype):
    x, state = make(CASES[name], 1, 40, heads=2, keys=48, values=40)
    found = errors(name, x, state, dtype)
    assert max(found.values()) < 1, found


@pytest.mark.parametrize("chunk", [16, 32, 64])
@pytest.mark.parametrize("strength", [1.0, 2.0])
@pytest.mark.parametrize("dtype", ROUNDOFF)
@pytest.mark.parametrize("name", DELTA_RULES)
def test_half_precision_on_correlated_keys(name, dtype, strength, chunk, monkeypatch):
    cut(monkeypatch, chunk, 64)
    found = errors(name, *correlated(name, strength, 1, 128, heads=1), dtype)
    assert max(found.values()) < 1, found


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_four_kernels_in_half_precision_on_correlated_keys(dtype):
    """Which is how sequences of several chunks are launched."""
    found = errors("gated DeltaNet", *correlated("gated DeltaNet", 2.0, 1, 128, heads=1), dtype)
    assert max(found.values()) < 1, found


@pytest.mark.parametrize("dtype", ROUNDOFF)
def test_an_inverse_in_one_half_is_not_enough(dtype, monkeypatch):
    from hypercrl_kernels.memory.chunk_memory.launch import Problem

    cut(monkeypatch, 32, 64)
    monkeypatch.setattr(Problem, "parts", 1)
    x, state = correlated("error before decay", 2.0, 1, 256, heads=1)
    assert max(errors("error before decay", x, state, dtype).values()) > 1


@pytest.mark.parametrize(
    ("chunk", "seed", "margin"), [(16, 0, 3), (32, 0, 3), (32, 1, 3), (32, 2, 3), (64, 0, 1)]
)
@pytest.mark.parametrize("name", DELTA_RULES)
def test_float32_on_correlated_keys(name, chunk, margin, seed, monkeypatch):
    """No launch takes chunks of 64 in float32."""
    cut(monkeypatch, chunk, 64)
    found = errors(name, *correlated(name, 2.0, 1, 128, heads=2, seed=seed), torch.float32)
    assert max(found.values()) < 1e-4 / margin, found
