"""How the context that a memory makes enters the main network.

While one plan is made a robot's context is constant, so each way folds into plain layers, one
network a robot, and neither the planner nor the rollout kernel knows of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.dynamics.layout import apply_layers
from hypercrl.dynamics.model import Layers

Network = Callable[[Tensor], Tensor]


class Conditioning(nn.Module, ABC):
    """One way of a context of width C into a network.

    Attributes:
        network_inputs: inputs that the main network has beside observation and action.
        embedding_inputs: inputs that a hypernetwork has beside the task embedding.
    """

    network_inputs = 0
    embedding_inputs = 0

    @abstractmethod
    def network(self, layers: Layers, context: Tensor) -> Network:
        """The network at contexts [N, T, C]: x [N, T, in] → [N, T, out], gradients recorded.

        Args:
            layers: of one network for all; or weights [N, out, in], one for each row.
        """

    @abstractmethod
    def fold(self, layers: Layers, context: Tensor) -> Layers:
        """Layers that do for robots of contexts [B, C] what `network` does: one network a robot."""


class InputConditioning(Conditioning):
    """The context is concatenated to the network's input; folded, it is a change of the first bias.

    Args:
        context_size: C.
    """

    def __init__(self, context_size: int) -> None:
        super().__init__()
        self.network_inputs = context_size

    def network(self, layers: Layers, context: Tensor) -> Network:
        seen, shift = self._first(layers, context)
        others = layers[1:]

        def apply(x: Tensor) -> Tensor:
            x = F.linear(x, seen) + shift
            return apply_layers(others, torch.relu(x)) if others else x

        return apply

    def fold(self, layers: Layers, context: Tensor) -> Layers:
        seen, shift = self._first(layers, context)
        return [
            (seen.expand(len(context), -1, -1), shift),
            *_for_each(layers[1:], len(context)),
        ]

    def _first(self, layers: Layers, context: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's matrix without the context's columns, and its biases with them."""
        weight, bias = layers[0]
        inputs = weight.shape[-1] - self.network_inputs
        return weight[:, :inputs], F.linear(context, weight[:, inputs:], bias)


class FiLM(Conditioning):
    """Every hidden unit is scaled and shifted: relu((1 + γ(c)) ∘ (W x + b) + β(c)), γ and β linear.

    Perez et al., "FiLM: Visual reasoning with a general conditioning layer", AAAI 2018, equation 2.
    γ and β start at zero. Folded, W's rows are scaled and b is moved.

    Args:
        context_size: C.
        hidden: hidden widths of the main network.
    """

    def __init__(self, context_size: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.hidden = tuple(hidden)
        self.weight = nn.Parameter(torch.zeros(2 * sum(hidden), context_size))

    def _modulation(self, context: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(1 + γ, β) [..., width] of each hidden layer."""
        gamma, beta = F.linear(context, self.weight).chunk(2, -1)
        return list(
            zip((1 + gamma).split(self.hidden, -1), beta.split(self.hidden, -1), strict=True)
        )

    def network(self, layers: Layers, context: Tensor) -> Network:
        *hidden, last = layers
        modulated = list(zip(hidden, self._modulation(context), strict=True))

        def apply(x: Tensor) -> Tensor:
            for (w, b), (scale, shift) in modulated:
                x = torch.relu(scale * F.linear(x, w, b) + shift)
            return F.linear(x, *last)

        return apply

    def fold(self, layers: Layers, context: Tensor) -> Layers:
        *hidden, last = layers
        folded = [
            (scale[..., None] * w, scale * b + shift)
            for (w, b), (scale, shift) in zip(hidden, self._modulation(context), strict=True)
        ]
        return [*folded, *_for_each([last], len(context))]


class HypernetworkConditioning(Conditioning):
    """The context is an input of the hypernetwork, which so writes a network for each robot.

    Args:
        context_size: C.
    """

    def __init__(self, context_size: int) -> None:
        super().__init__()
        self.embedding_inputs = context_size

    def network(self, layers: Layers, context: Tensor) -> Network:  # noqa: ARG002
        return lambda x: apply_layers(layers, x)

    def fold(self, layers: Layers, context: Tensor) -> Layers:  # noqa: ARG002
        return layers


def _for_each(layers: Sequence[tuple[Tensor, Tensor]], robots: int) -> Layers:
    return [(w.expand(robots, -1, -1), b.expand(robots, -1)) for w, b in layers]


CONDITIONINGS = ("input", "film", "hypernetwork")


def make_conditioning(name: str, context_size: int, hidden: Sequence[int]) -> Conditioning:
    """The one of `CONDITIONINGS` that is named, for a context of that width."""
    if name == "input":
        return InputConditioning(context_size)
    if name == "film":
        return FiLM(context_size, hidden)
    return HypernetworkConditioning(context_size)
