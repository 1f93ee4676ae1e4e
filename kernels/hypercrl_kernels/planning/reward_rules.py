"""What torch's operations are in lines of a program: on tensors of line numbers.

A rule gets an operation's arguments, with the lines of its numbers in place of every tensor, and
gives those of the result. `do(name, *operands)` writes a line for each element.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from hypercrl_kernels.planning.reward_program import COMPUTED

Do = Callable[..., Tensor]
"""(name of `COMPUTED` or "bool", operands of line numbers [...] or plain numbers) → line numbers.

"float" and "bool" of what is one already write nothing."""

Rule = Callable[..., Tensor]

MADE = {
    "arange", "full", "full_like", "lift_fresh", "lift_fresh_copy", "new_full", "new_ones",
    "new_zeros", "ones", "ones_like", "scalar_tensor", "zeros", "zeros_like",
}  # fmt: skip
"""New tensors, of which the numbers are those of a literal."""

MOVED = {
    "alias", "cat", "clone", "detach", "expand", "flip", "index", "index_select", "permute",
    "repeat", "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "t",
    "transpose", "unbind", "unsqueeze",
}  # fmt: skip
"""Functions that move numbers and compute none: line numbers are moved by the same function."""


class Untraceable(Exception):
    """A function that is no program: an operation, or a dependence, that none has."""


def _operation(name: str) -> Rule:
    return lambda do, *operands: do(name, *operands)


def _scaled(do: Do, name: str, a: Any, b: Any, alpha: float) -> Tensor:
    return do(name, a, b if alpha == 1 else do("mul", b, alpha))


def _power(do: Do, x: Tensor, exponent: Any) -> Tensor:
    powers = {
        0.5: lambda: do("sqrt", x),
        1: lambda: do("float", x),
        2: lambda: _square(do, x),
        3: lambda: do("mul", _square(do, x), x),
    }
    if isinstance(exponent, Tensor) or exponent not in powers:
        raise Untraceable
    return powers[exponent]()


def _quotient(do: Do, a: Any, b: Any, rounding_mode: str | None = None) -> Tensor:
    if rounding_mode is not None:
        raise Untraceable
    return do("div", a, b)


def _clamped(do: Do, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    x = x if low is None else do("maximum", x, low)
    return x if high is None else do("minimum", x, high)


def _copied(do: Do, x: Tensor, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    if dtype == torch.bool:
        return do("bool", x)
    return do("float", x) if dtype == torch.float32 else x  # others are refused as they are kept


def _along(dim: Any, keepdim: bool, x: Tensor) -> tuple[list[Tensor], tuple[int, ...]]:
    """The numbers that a reduction puts together, one tensor each, and the shape of its result."""
    dims = range(x.dim()) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    dims = sorted(d % x.dim() for d in dims)
    last = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    shape = [1 if d in dims else n for d, n in enumerate(x.shape) if keepdim or d not in dims]
    return list(last.unbind(-1)), tuple(shape)


def _as_it_is(do: Do, x: Tensor) -> Tensor:  # noqa: ARG001
    return x


def _float(do: Do, x: Tensor) -> Tensor:
    return do("float", x)


def _square(do: Do, x: Tensor) -> Tensor:
    return do("mul", x, x)


def _reduction(name: str, each: Rule = _as_it_is, after: Rule = _as_it_is) -> Rule:
    """Along dimensions: `each` number, combined by `name`, and then `after` it."""

    def rule(do: Do, x: Tensor, dim: Any = None, keepdim: bool = False, **more: Any) -> Tensor:
        if more.get("dtype") not in (None, torch.float32) or not x.dim():
            raise Untraceable
        parts, shape = _along(dim, keepdim, x)
        parts = [each(do, part) for part in parts]
        total = reduce(lambda a, b: do(name, a, b), parts)
        return after(do, total).reshape(shape)

    return rule


def _mean(do: Do, x: Tensor, *along: Any, **more: Any) -> Tensor:
    total = RULES["sum"](do, x, *along, **more)
    return do("div", total, float(x.numel() // total.numel()))


_NORMS = {
    1: _reduction("add", _operation("abs")),
    2: _reduction("add", _square, _operation("sqrt")),
    torch.inf: _reduction("maximum", _operation("abs")),
}


def _norm(do: Do, x: Tensor, order: float = 2, *along: Any, **more: Any) -> Tensor:
    if order not in _NORMS:
        raise Untraceable
    return _NORMS[order](do, x, *along, **more)


def _sigmoid(do: Do, x: Tensor) -> Tensor:
    return do("div", 1.0, do("add", 1.0, do("exp", do("neg", x))))


RULES: dict[str, Rule] = {
    **{name: _operation(name) for name in set(COMPUTED) - {"and", "or", "not", "float"}},
    **{
        f"{kind}_{name}": _operation(name)
        for kind in ("logical", "bitwise")
        for name in ("and", "or", "not")
    },
    "add": lambda do, a, b, alpha=1: _scaled(do, "add", a, b, alpha),
    "sub": lambda do, a, b, alpha=1: _scaled(do, "sub", a, b, alpha),
    "addcmul": lambda do, x, a, b, value=1: _scaled(do, "add", x, do("mul", a, b), value),
    "rsub": lambda do, a, b, alpha=1: do("sub", b, a if alpha == 1 else do("mul", a, alpha)),
    "div": _quotient,
    "gt": lambda do, a, b: do("lt", b, a),
    "ge": lambda do, a, b: do("le", b, a),
    "ne": lambda do, a, b: do("not", do("eq", a, b)),
    "relu": lambda do, x: do("maximum", x, 0.0),
    "reciprocal": lambda do, x: do("div", 1.0, x),
    "rsqrt": lambda do, x: do("div", 1.0, do("sqrt", x)),
    "sigmoid": _sigmoid,
    "pow": _power,
    "clamp": lambda do, x, min=None, max=None: _clamped(do, x, min, max),
    "clamp_min": _operation("maximum"),
    "clamp_max": _operation("minimum"),
    "masked_fill": lambda do, x, mask, value: do("where", mask, value, x),
    "_to_copy": _copied,
    "sum": _reduction("add", _float),
    "mean": _mean,
    "amax": _reduction("maximum"),
    "amin": _reduction("minimum"),
    "all": _reduction("and"),
    "any": _reduction("or"),
    "linalg_vector_norm": _norm,
}
"""By the name of torch's operation."""
