"""How a context, what a memory has in mind, reaches the main network.

While one plan is made a robot's context is constant, so each way folds into plain layers, one
network a robot, and neither the planner nor the rollout kernel knows of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.dynamics.layout import MLPLayout

Layers = list[tuple[Tensor, Tensor]]


class Conditioning(nn.Module, ABC):
    """One way of a context of width C into a network.

    Attributes:
        network_inputs: inputs that the main network has beside observation and action.
        embedding_inputs: inputs that a hypernetwork has beside the task embedding.
    """

    network_inputs = 0
    embedding_inputs = 0

    @abstractmethod
    def outputs(self, layout: MLPLayout, weights: Tensor, x: Tensor, context: Tensor) -> Tensor:
        """x [N, T, in] with contexts [N, T, C] → [N, T, out], gradients recorded.

        Args:
            weights: [P] of one network for all, or [N, P] of one for each row.
        """

    @abstractmethod
    def fold(self, layers: Layers, context: Tensor) -> Layers:
        """Layers that do for robots of contexts [B, C] what `outputs` does: one network a robot."""


class InputConditioning(Conditioning):
    """The context is concatenated to the network's input; folded, it is a change of the first bias.

    Args:
        context_size: C.
    """

    def __init__(self, context_size: int) -> None:
        super().__init__()
        self.network_inputs = context_size

    def outputs(self, layout: MLPLayout, weights: Tensor, x: Tensor, context: Tensor) -> Tensor:
        return layout.apply(weights, torch.cat([x, context], -1))

    def fold(self, layers: Layers, context: Tensor) -> Layers:
        (weight, bias), *others = layers
        inputs = weight.shape[-1] - self.network_inputs
        seen, told = weight[:, :inputs], weight[:, inputs:]
        first = (seen.expand(len(context), -1, -1), bias + context @ told.T)
        return [first, *_for_each(others, len(context))]


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

    def outputs(self, layout: MLPLayout, weights: Tensor, x: Tensor, context: Tensor) -> Tensor:
        *hidden, (weight, bias) = layout.split(weights)
        for (w, b), (scale, shift) in zip(hidden, self._modulation(context), strict=True):
            x = torch.relu(scale * F.linear(x, w, b) + shift)
        return F.linear(x, weight, bias)

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

    def outputs(
        self,
        layout: MLPLayout,
        weights: Tensor,
        x: Tensor,
        context: Tensor,  # noqa: ARG002
    ) -> Tensor:
        return layout.apply_each(weights, x)

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
