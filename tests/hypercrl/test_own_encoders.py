"""An encoder of somebody's own: training and control have to compute the same."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hypercrl.memory import MemoryConfig, MemoryEncoder, State, make_memory


class Sums(MemoryEncoder):
    """A linear map of the sum of all transitions."""

    config: MemoryConfig

    def __init__(self, input_size: int, config: MemoryConfig, generator: torch.Generator) -> None:
        super().__init__(input_size, config.context)
        weight = torch.randn(input_size, config.context, generator=generator)
        self.weight = nn.Parameter(weight)

    def _initial(self, batch: int) -> State:
        return {"sum": self.weight.new_zeros(batch, self.input_size)}

    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        sums = tokens.cumsum(1) + (0.0 if state is None else state["sum"][:, None])
        return sums @ self.weight, {"sum": sums[:, -1]}

    def _step(self, token: Tensor, state: State) -> Tensor:
        state["sum"] += token
        return state["sum"] @ self.weight


def made(kind: type[Sums]) -> Any:
    name = f"{__name__}:{kind.__name__}"
    return make_memory(MemoryConfig(name, context=3), 5, torch.Generator().manual_seed(4))


def test_one_that_is_right_is_made_as_without_a_look():
    generator = torch.Generator().manual_seed(4)
    plain = Sums(5, MemoryConfig("sums", context=3), generator)
    assert torch.equal(made(Sums).weight, plain.weight)


class Latest(Sums):
    def _step(self, token: Tensor, state: State) -> Tensor:
        return token @ self.weight


class Forgets(Sums):
    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        return super()._encode(tokens, None)


class Last(Sums):
    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        contexts, after = super()._encode(tokens, state)
        return contexts[:, -1:], after


class Drawn(Sums):
    def __init__(self, input_size: int, config: MemoryConfig, generator: torch.Generator) -> None:
        super().__init__(input_size, config, generator)
        self.weight = nn.Parameter(torch.randn(input_size, config.context))


class Fails(Sums):
    def _step(self, token: Tensor, state: State) -> Tensor:
        return state["mean"]


class Unmade(Sums):
    def __init__(self, input_size: int, config: MemoryConfig, generator: torch.Generator) -> None:
        raise KeyError("weights.pt")


class Ends(Sums):
    def _initial(self, batch: int) -> State:
        raise SystemExit(3)


class Double(Sums):
    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        contexts, after = super()._encode(tokens, state)
        return contexts.double(), after


class OfTwo(Sums):
    def _initial(self, batch: int) -> State:
        return super()._initial(2)


class Detached(Sums):
    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        contexts, after = super()._encode(tokens, state)
        return contexts.detach(), after


class Scales(Sums):
    """In place, which torch allows without gradients alone."""

    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        self.weight.mul_(1.0)
        return super()._encode(tokens, state)


class Rooted(Sums):
    """The root of 0 is 0, and its slope infinite."""

    def _encode(self, tokens: Tensor, state: State | None) -> tuple[Tensor, State]:
        contexts, after = super()._encode(tokens, state)
        return contexts + (self.weight.sum() * 0.0).abs().sqrt(), after


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unmade, "making it raised KeyError: 'weights.pt'"),
        (Ends, "trying it called sys.exit(3)"),
        (Double, "_encode returned contexts of torch.float64, not torch.float32"),
        (OfTwo, "_initial made sum (2, 5) for a batch of 1"),
        (Detached, "_encode returned contexts without gradients"),
        (Scales, "trying it raised RuntimeError: a leaf Variable that requires grad"),
        (Rooted, "the gradients of its contexts are not finite"),
        (Latest, "differ by .* and _step, one transition after the other"),
        (Forgets, "differ by .* a window that goes on from its state"),
        (Last, r"contexts (2, 1, 3) of 6 transitions, not (2, 6, 3)"),
        (Drawn, "draw all of them from the generator"),
        (Fails, "trying it raised KeyError: 'mean'"),
    ],
)
def test_one_that_is_not_is_refused(kind, message):
    told = message if ".*" in message else re.escape(message)
    with pytest.raises(ValueError, match=f"^memory={__name__}:{kind.__name__}: .*{told}"):
        made(kind)
