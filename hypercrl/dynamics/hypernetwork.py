"""Networks that write the weights of another network from a task embedding.

von Oswald et al., "Continual learning with hypernetworks", ICLR 2020.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.initial_weights import xavier_uniform
from hypercrl.dynamics.layout import MLPLayout
from hypercrl_kernels.training import Trunk

Layers = Sequence[tuple[Tensor, Tensor]]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"elu": F.elu, "relu": F.relu}


class Hypernetwork(nn.Module):
    """h(e, θ): an MLP with a shared trunk and one linear head per weight tensor of the target.

    The heads are the row blocks of its last matrix: the same map, one product instead of six. Each
    block is Xavier-uniform with its own fan-out; biases start at 0. All parameters θ are one flat
    vector, so that an optimiser, a norm or a step ahead is one operation, not one per tensor.

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
        trunk = (
            MLPLayout([embedding_size, *hidden]).initial(generator) if hidden else torch.empty(0)
        )
        self.layout = MLPLayout([embedding_size, *hidden, target.numel])
        width = self.layout.sizes[-2]
        heads = [xavier_uniform((length, width), generator).flatten() for length in target.lengths]
        self.theta = nn.Parameter(torch.cat([trunk, *heads, torch.zeros(target.numel)]))

    def forward(self, embeddings: Tensor, theta: Tensor | None = None) -> Tensor:
        """[T, E] → [T, P]: one flat weight vector per embedding, with θ or what is given for it."""
        layers = self.layout.split(self.theta if theta is None else theta)
        return _mlp(layers, embeddings, self.activation)

    def hidden(self, embeddings: Tensor) -> list[Tensor]:
        """[T, E] → [T, width] of each layer but the last."""
        return _hidden(self.layout.split(self.theta), embeddings, self.activation)

    @property
    def trunk(self) -> Trunk:
        """All layers but the last, whose parameters are the first of θ."""
        return Trunk(self.layout.sizes[:-1], self.activation)


class ChunkedHypernetwork(nn.Module):
    """Writes the target in chunks; the input is [task embedding; chunk embedding].

    All chunks of all tasks are one batch; the last chunk is cut to fit. The chunk embeddings are
    the first part of θ.

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
        self.chunks = -(-target.numel // chunk_size)
        chunk_embeddings = torch.randn(self.chunks, chunk_embedding_size, generator=generator)
        self.layout = MLPLayout([embedding_size + chunk_embedding_size, *hidden, chunk_size])
        initial = self.layout.initial(generator)
        self.theta = nn.Parameter(torch.cat([chunk_embeddings.flatten(), initial]))

    def forward(self, embeddings: Tensor, theta: Tensor | None = None) -> Tensor:
        """[T, E] → [T, P], with θ or what is given for it."""
        out = _mlp(*self._of_pairs(embeddings, self.theta if theta is None else theta))
        return out.flatten(1)[:, : self.numel]

    def hidden(self, embeddings: Tensor) -> list[Tensor]:
        """[T, E] → [T · chunks, width] of each layer but the last."""
        return [h.flatten(0, 1) for h in _hidden(*self._of_pairs(embeddings, self.theta))]

    def _of_pairs(self, embeddings: Tensor, theta: Tensor) -> tuple[Layers, Tensor, str]:
        """The layers, and their input [T, chunks, E + C]."""
        chunk_embeddings, layers = theta.split([len(theta) - self.layout.numel, self.layout.numel])
        chunk_embeddings = chunk_embeddings.view(self.chunks, -1)
        pairs = torch.cat(
            [
                embeddings[:, None].expand(-1, self.chunks, -1),
                chunk_embeddings[None].expand(len(embeddings), -1, -1),
            ],
            -1,
        )
        return self.layout.split(layers), pairs, self.activation


def _mlp(layers: Layers, x: Tensor, activation: str) -> Tensor:
    weight, bias = layers[-1]
    return F.linear([x, *_hidden(layers, x, activation)][-1], weight, bias)


def _hidden(layers: Layers, x: Tensor, activation: str) -> list[Tensor]:
    found: list[Tensor] = []
    for weight, bias in layers[:-1]:
        x = ACTIVATIONS[activation](F.linear(x, weight, bias))
        found.append(x)
    return found
