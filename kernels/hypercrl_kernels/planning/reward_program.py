"""From a reward in torch to straight-line scalar code, which a kernel can run for itself.

The function is called once on a few transitions. Beside every tensor that it makes goes one of line
numbers: which line of the program is this number? What moves numbers about (slices, views,
concatenations) is done to the line numbers as it is to the numbers; what computes writes new lines.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

TransitionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(obs [..., O], action [..., A], next_obs [..., O]) → [...]."""

Line = tuple[Any, ...]
"""An operation and its operands, which are numbers of earlier lines; ("obs", i), ("action", i) and
("next_obs", i) are read; ("number", x) is x; ("constant", k, i) is i numbers into the memory of the
k-th tensor."""

LONGEST = 512
_LEAD = (2, 2, 2)  # of the transitions that are traced: [B, K, H], no dimension that is left out
_SOURCES = ("obs", "action", "next_obs")

COMPUTED: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "lt": torch.lt,
    "le": torch.le,
    "eq": torch.eq,
    "and": torch.logical_and,
    "or": torch.logical_or,
    "not": torch.logical_not,
    "where": torch.where,
    "float": lambda x: x.to(torch.get_default_dtype()),
    "neg": torch.neg,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
}
"""Every operation of a program, and what it is in torch."""

_LOGICAL = {"lt", "le", "eq", "and", "or", "not"}


class Untraceable(Exception):
    """A function that is no program: an operation, or a dependence, that none has."""


@dataclass(frozen=True)
class Program:
    """The lines in order, the last one is the result; `constants` are read as they are then."""

    lines: tuple[Line, ...]
    constants: tuple[Tensor, ...]

    def __call__(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """The program in torch operations, [...]: what a kernel that runs it is to compute."""
        sources = dict(zip(_SOURCES, (obs, action, next_obs), strict=True))
        values: list[Tensor] = []
        for name, *operands in self.lines:
            if name in sources:
                values.append(sources[name][..., operands[0]])
            elif name == "number":
                values.append(obs.new_tensor(operands[0]))
            elif name == "constant":
                tensor, place = operands
                values.append(self.constants[tensor].as_strided((), (), place).to(obs))
            else:
                values.append(COMPUTED[name](*(values[i] for i in operands)))
        return values[-1].expand(obs.shape[:-1])


def trace(
    function: TransitionFunction, obs: int, action: int, device: torch.device
) -> Program | None:
    """The function as a program, or None where it is none.

    It is one where it is made of pointwise operations, sums and the like along the last dimensions,
    and treats all transitions alike. Tensors that it holds (constants of the task) may change in
    place later. Called once, on random transitions, for which the program gives the same.

    Args:
        obs, action: O and A.
        device: of the transitions.
    """
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(*_LEAD, size, generator=generator).to(device) for size in (obs, action, obs)
    ]
    try:
        with torch.no_grad():
            tracer = _Tracer(inputs)
            with tracer:
                result = function(*inputs)
            program = tracer.program(result)
            same = torch.allclose(program(*inputs) * 1.0, result * 1.0, 1e-4, 1e-5, equal_nan=True)
    except (Untraceable, NotImplementedError, RuntimeError):
        return None  # the planner calls the function itself, with whatever error it has
    return program if same else None


class _Tracer(TorchDispatchMode):
    """Runs every operation, and keeps for its result the lines that its numbers are."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.lines: dict[Line, int] = {}
        self.logical: set[int] = set()
        self.constants: list[Tensor] = []
        self.alive: list[Tensor] = []  # so that no identity is used twice
        self.known: dict[int, Tensor] = {}
        for name, tensor in zip(_SOURCES, inputs, strict=True):
            flat = range(tensor.numel())
            size = tensor.shape[-1]
            self._keep(tensor, [self.line(name, i % size, i // size) for i in flat])

    def program(self, result: Tensor) -> Program:
        """Of the first transition, once it is known that every one depends on itself alone."""
        lines, roots = list(self.lines), self.of(result)
        if roots.shape != _LEAD:
            raise Untraceable
        for transition, root in enumerate(roots.flatten().tolist()):
            used = _needed(lines, root)
            if any(lines[i][0] in _SOURCES and lines[i][2] != transition for i in used):
                raise Untraceable
        used = _needed(lines, int(roots.flatten()[0]))
        if len(used) > LONGEST:
            raise Untraceable
        place = {line: i for i, line in enumerate(used)}
        short: list[Line] = []
        for name, *operands in (lines[i] for i in used):
            if name in _SOURCES:
                short.append((name, operands[0]))
            else:
                computed = name in COMPUTED
                short.append((name, *(place[i] if computed else i for i in operands)))
        return Program(tuple(short), tuple(self.constants))

    def line(self, name: str, *operands: Any) -> int:
        """Number of a line, a new one where there is none like it."""
        number = self.lines.setdefault((name, *operands), len(self.lines))
        if name in _LOGICAL:
            self.logical.add(number)
        return number

    def number(self, value: float | bool) -> int:
        if isinstance(value, bool):
            zero = self.number(0.0)
            return self.line("eq", zero, zero if value else self.number(1.0))
        return self.line("number", float(value))

    def compute(self, name: str, *operands: int) -> int:
        """A line of an operation whose operands may have to be made numbers first."""
        if name == "mul" and self.logical.issuperset(operands):
            name = "and"  # as of two tensors of bools
        if name in ("and", "or", "not"):
            operands = tuple(self._as_logical(i) for i in operands)
        elif name == "where":
            operands = (operands[0], *(self.as_float(i) for i in operands[1:]))
        else:
            operands = tuple(self.as_float(i) for i in operands)
        return self.line(name, *operands)

    def as_float(self, number: int) -> int:
        return self.line("float", number) if number in self.logical else number

    def _as_logical(self, number: int) -> int:
        if number not in self.logical:
            raise Untraceable
        return number

    def of(self, value: Any) -> Tensor:
        """Line numbers of a tensor or of a plain number."""
        if not isinstance(value, Tensor):
            return torch.tensor(self.number(value))
        if id(value) in self.known:
            return self.known[id(value)]
        if value.dtype != torch.float32:
            raise Untraceable
        if value.dim() == 0 and value.device.type == "cpu":
            return torch.tensor(self.number(value.item()))
        # A tensor of the function's own: its numbers are read whenever the program is run.
        place = sum(
            torch.arange(size).view(-1, *(1,) * (value.dim() - 1 - i)) * value.stride(i)
            for i, size in enumerate(value.shape)
        )
        places = torch.as_tensor(place).expand(value.shape).flatten().tolist()
        self.constants.append(value)
        k = len(self.constants) - 1
        return self._keep(value, [self.line("constant", k, i) for i in places])

    def _keep(self, tensor: Tensor, lines: Sequence[int] | Tensor) -> Tensor:
        if tensor.dtype not in (torch.float32, torch.bool):
            raise Untraceable
        lines = torch.as_tensor(lines, dtype=torch.int64).view(tensor.shape)
        logical = [i in self.logical for i in lines.flatten().tolist()]
        if any(one != (tensor.dtype == torch.bool) for one in logical):
            raise Untraceable
        self.alive.append(tensor)
        self.known[id(tensor)] = lines
        return lines

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        out = func(*args, **kwargs)
        if name in _MADE:
            if out.dtype in (torch.float32, torch.bool):
                self._keep(out, [self.number(value) for value in out.flatten().tolist()])
            return out
        if name in ("view", "_unsafe_view"):
            lines = self.of(args[0]).reshape(out.shape)
        elif name in _MOVED:
            first = args[0]
            several = isinstance(first, list | tuple)
            lines = func([self.of(x) for x in first] if several else self.of(first), *args[1:])
        elif name in _RULES:
            lines = _RULES[name](self, *args, **kwargs)
        else:
            raise Untraceable(name)
        if isinstance(out, Tensor):
            self._keep(out, lines)
        else:
            for tensor, its in zip(out, lines, strict=True):
                self._keep(tensor, its)
        return out


def _needed(lines: Sequence[Line], root: int) -> list[int]:
    """Numbers of the lines that a line is made of, in order."""
    found, open_ = {root}, [root]
    while open_:
        name, *operands = lines[open_.pop()]
        if name in COMPUTED:
            open_ += set(operands) - found
            found |= set(operands)
    return sorted(found)


_MADE = {
    "arange", "full", "full_like", "lift_fresh", "lift_fresh_copy", "new_full", "new_ones",
    "new_zeros", "ones", "ones_like", "scalar_tensor", "zeros", "zeros_like",
}  # fmt: skip
"""New tensors, of which the numbers are those of a literal."""

_MOVED = {
    "alias", "cat", "clone", "detach", "expand", "flip", "index", "index_select", "permute",
    "repeat", "roll", "select", "slice", "split", "split_with_sizes", "squeeze", "stack", "t",
    "transpose", "unbind", "unsqueeze",
}  # fmt: skip
"""Functions that move numbers and compute none: line numbers are moved by the same function."""

Rule = Callable[..., Tensor]


def _pointwise(compute: Callable[..., int]) -> Rule:
    """A rule for all elements: `compute` of the tracer and one line number an operand."""

    def rule(tracer: _Tracer, *operands: Any) -> Tensor:
        parts = torch.broadcast_tensors(*(tracer.of(x) for x in operands))
        columns = zip(*(part.flatten().tolist() for part in parts), strict=True)
        lines = [compute(tracer, *column) for column in columns]
        return torch.tensor(lines, dtype=torch.int64).view(parts[0].shape)

    return rule


def _operation(name: str) -> Rule:
    return _pointwise(lambda tracer, *operands: tracer.compute(name, *operands))


def _reduction(combine: Callable[[_Tracer, list[int]], int]) -> Rule:
    """A rule along dimensions; `combine` makes one line of those that are put together."""

    def rule(
        tracer: _Tracer, x: Tensor, dim: Any = None, keepdim: bool = False, **more: Any
    ) -> Tensor:
        if more.get("dtype") not in (None, torch.float32):
            raise Untraceable
        lines = tracer.of(x)
        given = (
            range(x.dim()) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
        )
        dims = sorted(d % x.dim() for d in given)
        kept = [d for d in range(x.dim()) if d not in dims]
        rows = lines.permute(*kept, *dims).reshape(
            -1, reduce(operator.mul, (x.shape[d] for d in dims), 1)
        )
        shape = [1 if d in dims else n for d, n in enumerate(x.shape) if keepdim or d not in dims]
        return torch.tensor([combine(tracer, row) for row in rows.tolist()]).view(shape)

    return rule


def _chain(name: str) -> Callable[[_Tracer, list[int]], int]:
    return lambda tracer, row: reduce(lambda a, b: tracer.compute(name, a, b), row)


def _sum(tracer: _Tracer, row: list[int]) -> int:
    return _chain("add")(tracer, [tracer.as_float(i) for i in row])


def _mean(tracer: _Tracer, row: list[int]) -> int:
    return tracer.compute("div", _sum(tracer, row), tracer.number(float(len(row))))


def _norm(
    tracer: _Tracer,
    x: Tensor,
    order: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    **more: Any,
) -> Tensor:
    combine = {
        1: lambda tracer, row: _sum(tracer, [tracer.compute("abs", i) for i in row]),
        2: lambda tracer, row: tracer.compute(
            "sqrt", _sum(tracer, [tracer.compute("mul", i, i) for i in row])
        ),
        torch.inf: lambda tracer, row: _chain("maximum")(
            tracer, [tracer.compute("abs", i) for i in row]
        ),
    }.get(order)
    return _reduction(combine)(tracer, x, dim, keepdim, **more) if combine else _refuse()


def _scaled(name: str) -> Rule:
    """a + alpha b and a − alpha b."""

    def rule(tracer: _Tracer, a: Any, b: Any, alpha: float = 1) -> Tensor:
        def compute(tracer: _Tracer, a: int, b: int) -> int:
            if alpha != 1:
                b = tracer.compute("mul", b, tracer.number(alpha))
            return tracer.compute(name, a, b)

        return _pointwise(compute)(tracer, a, b)

    return rule


def _subtracted_from(tracer: _Tracer, a: Any, b: Any, alpha: float = 1) -> Tensor:
    return _scaled("sub")(tracer, b, a) if alpha == 1 else _refuse()


def _quotient(tracer: _Tracer, a: Any, b: Any, rounding_mode: str | None = None) -> Tensor:
    return _operation("div")(tracer, a, b) if rounding_mode is None else _refuse()


def _power(tracer: _Tracer, x: Any, exponent: Any) -> Tensor:
    compute = {
        0.5: lambda tracer, i: tracer.compute("sqrt", i),
        1: lambda tracer, i: tracer.as_float(i),
        2: lambda tracer, i: tracer.compute("mul", i, i),
        3: lambda tracer, i: tracer.compute("mul", tracer.compute("mul", i, i), i),
    }.get(exponent if isinstance(exponent, int | float) else None)
    return _pointwise(compute)(tracer, x) if compute else _refuse()


def _clamped(tracer: _Tracer, x: Any, min: Any = None, max: Any = None) -> Tensor:
    if min is not None and max is not None:
        return _pointwise(
            lambda tracer, i, low, high: tracer.compute(
                "minimum", tracer.compute("maximum", i, low), high
            )
        )(tracer, x, min, max)
    name, bound = ("minimum", max) if min is None else ("maximum", min)
    return _operation(name)(tracer, x, bound)


def _cast(tracer: _Tracer, x: Tensor, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    if dtype == torch.float32:
        return _pointwise(_Tracer.as_float)(tracer, x)
    if dtype == torch.bool and x.dtype != torch.bool:
        return _RULES["ne"](tracer, x, 0.0)
    return tracer.of(x)  # of another dtype it is refused as it is kept


def _filled(tracer: _Tracer, x: Tensor, mask: Tensor, value: Any) -> Tensor:
    return _operation("where")(tracer, mask, value, x)


def _refuse() -> Tensor:
    raise Untraceable


def _sigmoid(tracer: _Tracer, i: int) -> int:
    falling = tracer.compute("exp", tracer.compute("neg", i))
    one = tracer.number(1.0)
    return tracer.compute("div", one, tracer.compute("add", one, falling))


_RULES: dict[str, Rule] = {
    **{name: _operation(name) for name in set(COMPUTED) - {"and", "or", "not", "float"}},
    **{
        f"{kind}_{name}": _operation(name)
        for kind in ("logical", "bitwise")
        for name in ("and", "or", "not")
    },
    "add": _scaled("add"),
    "sub": _scaled("sub"),
    "rsub": _subtracted_from,
    "div": _quotient,
    "gt": _pointwise(lambda tracer, a, b: tracer.compute("lt", b, a)),
    "ge": _pointwise(lambda tracer, a, b: tracer.compute("le", b, a)),
    "ne": _pointwise(lambda tracer, a, b: tracer.compute("not", tracer.compute("eq", a, b))),
    "relu": _pointwise(lambda tracer, i: tracer.compute("maximum", i, tracer.number(0.0))),
    "reciprocal": _pointwise(lambda tracer, i: tracer.compute("div", tracer.number(1.0), i)),
    "rsqrt": _pointwise(
        lambda tracer, i: tracer.compute("div", tracer.number(1.0), tracer.compute("sqrt", i))
    ),
    "sigmoid": _pointwise(_sigmoid),
    "pow": _power,
    "clamp": _clamped,
    "clamp_min": _operation("maximum"),
    "clamp_max": _operation("minimum"),
    "masked_fill": _filled,
    "_to_copy": _cast,
    "sum": _reduction(_sum),
    "mean": _reduction(_mean),
    "amax": _reduction(_chain("maximum")),
    "amin": _reduction(_chain("minimum")),
    "all": _reduction(_chain("and")),
    "any": _reduction(_chain("or")),
    "linalg_vector_norm": _norm,
}
"""By the name of torch's operation."""
