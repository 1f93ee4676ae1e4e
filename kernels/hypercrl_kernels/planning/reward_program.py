"""Rewards as straight-line scalar code, which a kernel can run for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Line = tuple[Any, ...]
"""An operation and its operands, which are numbers of earlier lines; ("obs", i), ("action", i) and
("next_obs", i) are read; ("number", x) is x; ("constant", k, i) is i numbers into the memory of the
k-th tensor."""

SOURCES = ("obs", "action", "next_obs")

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

LOGICAL = {"lt", "le", "eq", "and", "or", "not"}
"""Operations whose result is a bool; `and`, `or` and `not` take bools too, all others numbers."""


@dataclass(frozen=True)
class Program:
    """The lines in order, the last one is the result; `constants` are read as they are then."""

    lines: tuple[Line, ...]
    constants: tuple[Tensor, ...]

    def __call__(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """The program in torch operations, [...]: what a kernel that runs it is to compute."""
        sources = dict(zip(SOURCES, (obs, action, next_obs), strict=True))
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
