"""From a reward in torch to a program.

The function is called on a few transitions. Beside every tensor that it makes goes one of line
numbers: which line of the program is this number? What moves numbers about (slices, views,
concatenations) is done to the line numbers as it is to the numbers; what computes writes new lines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hypercrl_kernels.planning.reward_program import COMPUTED, LOGICAL, SOURCES, Line, Program
from hypercrl_kernels.planning.reward_rules import MADE, MOVED, RULES, Untraceable

TransitionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(obs [..., O], action [..., A], next_obs [..., O]) → [...]."""

LONGEST = 512
_LEAD = (2, 2, 2)  # of the transitions that are traced: [B, K, H], no dimension that is left out


def trace(
    function: TransitionFunction, obs: int, action: int, device: torch.device
) -> Program | None:
    """The function as a program, or None where it is none.

    It is one where it is made of pointwise operations, sums and the like along the last dimensions,
    and treats all transitions alike. float32 tensors on the device that it holds (constants of the
    task) may change in place later; Python numbers and lists are those of now, as in a captured
    graph. Called twice, on random transitions, for which the program gives the same: functions may
    bring their constants to the device at the first call.

    Args:
        obs, action: O and A.
        device: of the transitions.
    """
    generator = torch.Generator().manual_seed(0)
    sizes = (obs, action, obs)
    inputs = [torch.randn(*_LEAD, size, generator=generator).to(device) for size in sizes]
    try:
        with torch.no_grad():
            wanted = function(*inputs)
            tracer = _Tracer(inputs)
            with tracer:
                result = function(*inputs)
            program = tracer.program(result)
            same = torch.allclose(program(*inputs) * 1.0, wanted * 1.0, 1e-4, 1e-5, equal_nan=True)
    except Exception:  # of the function or of an unknown operation: the planner calls it itself
        return None
    return program if same else None


class _Tracer(TorchDispatchMode):
    """Runs every operation, and keeps for its result the lines that its numbers are."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.lines: list[Line] = []
        self.numbers: dict[Line, int] = {}
        self.constants: list[Tensor] = []
        self.known: dict[int, tuple[Tensor, Tensor]] = {}  # tensors stay, so that identities do
        self.literals: dict[int, Tensor] = {}  # whole numbers made by the function: indices
        for name, tensor in zip(SOURCES, inputs, strict=True):
            size = tensor.shape[-1]
            places = range(tensor.numel())
            self._keep(tensor, [self._line(name, i % size, i // size) for i in places])

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch._dynamo is imported for this: a second

    def program(self, result: Tensor) -> Program:
        """Of the first transition, once it is known that every one depends on itself alone."""
        roots = self._of(result)
        if roots.shape != _LEAD:
            raise Untraceable
        needed = [self._needed(root) for root in roots.flatten().tolist()]
        for transition, numbers in enumerate(needed):
            lines = (self.lines[i] for i in numbers)
            if any(line[0] in SOURCES and line[2] != transition for line in lines):
                raise Untraceable
        if len(needed[0]) > LONGEST:
            raise Untraceable
        place = {number: i for i, number in enumerate(needed[0])}
        short: list[Line] = []
        for name, *operands in (self.lines[i] for i in needed[0]):
            if name in SOURCES:
                operands = operands[:1]
            elif name in COMPUTED:
                operands = [place[i] for i in operands]
            short.append((name, *operands))
        return Program(tuple(short), tuple(self.constants))

    def _needed(self, root: int) -> list[int]:
        """Numbers of the lines that a line is made of, in order."""
        found, todo = {root}, [root]
        while todo:
            name, *operands = self.lines[todo.pop()]
            new = set(operands) - found if name in COMPUTED else set()
            todo += new
            found |= new
        return sorted(found)

    def _line(self, *line: Any) -> int:
        """Number of a line, a new one where there is none like it."""
        if line not in self.numbers:
            self.numbers[line] = len(self.lines)
            self.lines.append(line)
        return self.numbers[line]

    def _number(self, value: float | bool) -> int:
        number = self._line("number", float(value))
        return self._compute("bool", number) if isinstance(value, bool) else number

    def _compute(self, name: str, *operands: int) -> int:
        """A line of an operation, bools made numbers for it as torch does."""
        logical = [self.lines[i][0] in LOGICAL for i in operands]
        if name == "float":
            return self._line(name, *operands) if logical[0] else operands[0]
        if name == "bool":
            equal = self._line("eq", operands[0], self._number(0.0))
            return operands[0] if logical[0] else self._line("not", equal)
        if name == "mul" and all(logical):
            name = "and"  # as of two tensors of bools
        if name in ("and", "or", "not"):
            if not all(logical):
                raise Untraceable
            return self._line(name, *operands)
        condition = operands[:1] if name == "where" else ()
        numbers = operands[len(condition) :]
        return self._line(name, *condition, *(self._compute("float", i) for i in numbers))

    def _do(self, name: str, *operands: Any) -> Tensor:
        """A line for each element of the operands, which are broadcast."""
        given = [x if isinstance(x, Tensor) else torch.tensor(self._number(x)) for x in operands]
        parts = torch.broadcast_tensors(*given)
        columns = zip(*(part.flatten().tolist() for part in parts), strict=True)
        return torch.tensor([self._compute(name, *c) for c in columns]).view(parts[0].shape)

    def _of(self, tensor: Tensor) -> Tensor:
        """Line numbers of a tensor, on the CPU."""
        if id(tensor) in self.known:
            return self.known[id(tensor)][1]
        if tensor.dtype != torch.float32:
            raise Untraceable
        if tensor.dim() == 0 and tensor.device.type == "cpu":
            return torch.tensor(self._number(tensor.item()))
        # A tensor of the function's own: its numbers are read whenever the program is run.
        places = torch.zeros((), dtype=torch.int64)
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            places = places[..., None] + stride * torch.arange(size)
        self.constants.append(tensor)
        k = len(self.constants) - 1
        return self._keep(tensor, [self._line("constant", k, i) for i in places.flatten().tolist()])

    def _keep(self, tensor: Tensor, lines: Sequence[int] | Tensor) -> Tensor:
        """Numbers of the same kind as their lines, on the device of the transitions."""
        lines = torch.as_tensor(lines, dtype=torch.int64).view(tensor.shape)
        kinds = {self.lines[i][0] in LOGICAL for i in lines.flatten().tolist()}
        if tensor.dtype not in (torch.float32, torch.bool) or kinds - {tensor.dtype == torch.bool}:
            raise Untraceable
        first = next(iter(self.known.values()), (tensor,))[0]
        if tensor.dim() and tensor.device != first.device:
            raise Untraceable  # what is copied from a CPU may be other numbers next time
        self.known[id(tensor)] = tensor, lines
        return lines

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func.overloadpacket.__name__
        first = args[0] if args else None
        if name in MADE or (name == "_to_copy" and id(first) in self.literals):
            self._literal(name, out)
        elif name in MOVED or name in ("view", "_unsafe_view"):
            self._moved(func, name, out, *args)
        elif name in RULES:
            lines = tree_map_only(Tensor, self._of, (args, kwargs))
            self._keep(out, RULES[name](self._do, *lines[0], **lines[1]))
        else:
            raise Untraceable(name)
        return out

    def _literal(self, name: str, out: Tensor) -> None:
        if out.dtype not in (torch.float32, torch.bool):
            self.literals[id(out)] = out
        elif name not in ("lift_fresh", "lift_fresh_copy"):
            self._keep(out, [self._number(value) for value in out.flatten().tolist()])
        elif out.dim():
            raise Untraceable  # from an array, say, whose numbers may be others next time

    def _moved(self, func: Any, name: str, out: Any, first: Any, *how: Any) -> None:
        lines = tree_map_only(Tensor, self._of, first)
        how = tree_map_only(Tensor, self._index, how)
        moved = func(lines, *how) if name in MOVED else lines.reshape(out.shape)
        pairs = [(out, moved)] if isinstance(out, Tensor) else zip(out, moved, strict=True)
        for tensor, its in pairs:
            self._keep(tensor, its)

    def _index(self, tensor: Tensor) -> Tensor:
        if id(tensor) not in self.literals:
            raise Untraceable
        return tensor.cpu()
