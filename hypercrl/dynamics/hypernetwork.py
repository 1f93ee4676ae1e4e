"""Networks that write the weights of another network from a task embedding.

von Oswald et al., "Continual learning with hypernetworks", ICLR 2020.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.dynamics.layout import MLPLayout, xavier_uniform

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"elu": F.elu, "relu": F.relu}


class Hypernetwork(nn.Module):
    """Shared trunk, one linear head per weight tensor of the target.

    The heads are kept as the row blocks of one matrix: the same map, one product instead of six.
    Each block is Xavier-uniform with its own fan-out; biases start at 0.

    Args:
        target: layout of the network to be written, P numbers.
        embedding_size: width E of a task embedding.
        hidden: widths of the trunk.
        activation: "elu" or "relu".
        generator: CPU generator of the initial weights.
    """

    def __init__(
        self,
        target: MLPLayout,
        embedding_size: int,
        hidden: Sequence[int],
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.trunk = _trunk([embedding_size, *hidden], generator)
        width = [embedding_size, *hidden][-1]
        blocks = [xavier_uniform((length, width), generator) for length in target.lengths]
        self.head_weight = nn.Parameter(torch.cat(blocks))
        self.head_bias = nn.Parameter(torch.zeros(target.numel))

    def forward(self, embeddings: Tensor) -> Tensor:
        """[T, E] → [T, P]: one flat weight vector per embedding."""
        features = _features(self.trunk, embeddings, self.activation)
        return F.linear(features, self.head_weight, self.head_bias)


def hypernetwork_numel(target: MLPLayout, embedding_size: int, hidden: Sequence[int]) -> int:
    """Parameters of a `Hypernetwork` of these sizes."""
    sizes = [embedding_size, *hidden, target.numel]
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes))


class ChunkedHypernetwork(nn.Module):
    """Writes the target in chunks; the input is [task embedding; chunk embedding].

    All chunks of all tasks are one batch; the last chunk is cut to fit.

    Args:
        chunk_size: numbers written per chunk.
        chunk_embedding_size: width of a learned chunk embedding ~ N(0, 1) at the start.
    """

    def __init__(
        self,
        target: MLPLayout,
        embedding_size: int,
        hidden: Sequence[int],
        activation: str,
        chunk_size: int,
        chunk_embedding_size: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.numel = target.numel
        chunks = -(-target.numel // chunk_size)
        self.chunk_embeddings = nn.Parameter(
            torch.randn(chunks, chunk_embedding_size, generator=generator)
        )
        self.trunk = _trunk([embedding_size + chunk_embedding_size, *hidden], generator)
        self.head = _linear(hidden[-1], chunk_size, generator)

    def forward(self, embeddings: Tensor) -> Tensor:
        """[T, E] → [T, P]."""
        tasks, chunks = len(embeddings), len(self.chunk_embeddings)
        pairs = torch.cat(
            [
                embeddings[:, None].expand(-1, chunks, -1),
                self.chunk_embeddings[None].expand(tasks, -1, -1),
            ],
            -1,
        )
        out = self.head(_features(self.trunk, pairs, self.activation))
        return out.flatten(1)[:, : self.numel]


def _linear(fan_in: int, fan_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out)
    layer.weight.data = xavier_uniform((fan_out, fan_in), generator)
    layer.bias.data.zero_()
    return layer


def _trunk(sizes: Sequence[int], generator: torch.Generator) -> nn.ModuleList:
    pairs = itertools.pairwise(sizes)
    return nn.ModuleList(_linear(i, o, generator) for i, o in pairs)


def _features(trunk: nn.ModuleList, x: Tensor, activation: str) -> Tensor:
    function = ACTIVATIONS[activation]
    for layer in trunk:
        x = function(layer(x))
    return x
