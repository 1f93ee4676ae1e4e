"""Errors of the delta rules' kernels on correlated keys, with a GPU's rounding, on a CPU.

The kernels themselves run in Triton's interpreter, which is made to round as tensor cores do
(`tests/kernels/tensor_cores.py`), on the inputs of `test_correlated_keys` in `test_gpu_memory.py`.
Half precision is printed as shares of the limits there, float32 as relative errors.

    TRITON_INTERPRET=1 PYTHONPATH=tests/kernels python scripts/emulate_memory.py
    TRITON_INTERPRET=1 PYTHONPATH=tests/kernels python scripts/emulate_memory.py --split
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import itertools

import pytest
import torch
from memory_cases import correlated
from tensor_cores import use_tensor_cores
from test_memory_rounding import DELTA_RULES, cut, errors


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--names", nargs="+", default=DELTA_RULES)
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float16", "float32"])
    parser.add_argument("--strengths", nargs="+", type=float, default=[1.0, 2.0], help="β")
    parser.add_argument("--chunk", type=int, default=32, help="steps; launches take 32 at width 64")
    parser.add_argument("--split", action="store_true", help="the four kernels, in chunks of 64")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--heads", type=int, default=2)
    a = parser.parse_args()
    with pytest.MonkeyPatch.context() as patch:
        use_tensor_cores(patch)
        if not a.split:
            cut(patch, a.chunk, 64)
        for case in itertools.product(a.names, a.dtypes, a.strengths, a.seeds):
            name, dtype, strength, seed = case
            x, state = correlated(name, strength, a.batch, a.length, a.heads, seed=seed)
            found = errors(name, x, state, getattr(torch, dtype))
            print(*case, {key: float(f"{value:.2g}") for key, value in found.items()}, flush=True)


if __name__ == "__main__":
    main()
