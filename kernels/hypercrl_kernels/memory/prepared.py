"""A kernel with its grid and constants settled, launched past what Triton does anew every time.

`kernel[grid](...)` binds all parameters by name, specialises each and looks the compiled kernel up
by a key of them all, which takes longer than a short kernel runs. It returns the compiled kernel;
that can be launched itself, as in Triton's tutorial of the fused softmax, and takes addresses as
well as tensors (its launchers of 3.6 to 3.9 do, and say so where they refuse anything else): of a
tensor it would ask the driver for each. Current device, stream and launch hooks stay Triton's
business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any

import torch
import triton
from torch import Tensor

ALIGNED = 16  # bytes; Triton compiles pointers that are multiples of it for wider loads


class PreparedKernel:
    """Launches a kernel on tensors, its first parameters; all others are settled.

    Triton compiles for some values of numbers, which do not change here, and for device, dtypes,
    what is None, and alignment: compiled kernels of aligned tensors are kept by the first three,
    and misaligned tensors are left to Triton, as is one on another device, such as a CPU. What runs
    interpreted is never compiled, and always launched the plain way.
    """

    def __init__(
        self,
        kernel: Any,
        grid: Sequence[int],
        constants: Mapping[str, int | float | str],
        options: Mapping[str, int | None],
    ) -> None:
        """With `constants` for all other parameters, and warps and the like as `options`."""
        self._kernel = kernel
        self._grid = (*grid, 1, 1)[:3]
        self._named = {**constants, **options}
        names = [name for name in kernel.arg_names if name in constants]
        self._constants = tuple(constants[name] for name in names)
        self._compiled: dict[tuple, Callable[..., None]] = {}

    def __call__(self, tensors: Sequence[Tensor | None]) -> None:
        if not isinstance(self._kernel, triton.JITFunction):
            self.plain(tensors)
            return
        places = [0 if x is None else x.data_ptr() for x in tensors]
        if reduce(or_, places) % ALIGNED:
            self.plain(tensors)
            return
        kinds = [None if x is None else (x.dtype, x.get_device()) for x in tensors]
        key = (torch.cuda.current_device(), *kinds)
        launch = self._compiled.get(key)
        if launch is not None:
            launch(*places, *self._constants)
            return
        compiled = self.plain(tensors)
        if compiled is not None:  # a hook of Triton's may forbid it
            self._compiled[key] = compiled[self._grid]

    def plain(self, tensors: Sequence[Tensor | None]) -> Any:
        """The launch as Triton does it; returns the compiled kernel, None in the interpreter."""
        return self._kernel[self._grid](*tensors, **self._named)
