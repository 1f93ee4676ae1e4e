"""Progressive networks: a new column per task that reads the frozen ones.

Rusu et al., "Progressive neural networks", 2016, equation 1.
"""

import itertools

import torch
from torch import Tensor, nn

from hypercrl.base.initial_weights import xavier_uniform
from hypercrl.dynamics import MLPLayout
from hypercrl.methods.gradient import GradientMethod

INITIAL_ALPHA = 0.1
"""Scale of what a new column hears from an old one at first."""


class Column(nn.Module):
    """The network of one task and its links from the layers below of `earlier` older columns."""

    def __init__(self, layout: MLPLayout, earlier: int, generator: torch.Generator) -> None:
        super().__init__()
        self.own = nn.Parameter(layout.initial(generator))
        pairs = list(itertools.pairwise(layout.sizes))[1:]
        self.links = nn.ParameterList(
            torch.stack([xavier_uniform((o, i), generator) for _ in range(earlier)])
            for i, o in pairs
            if earlier
        )
        self.alpha = nn.Parameter(torch.full((len(pairs), earlier), INITIAL_ALPHA))

    def incoming(self, layer: int) -> list[Tensor]:
        """α U of each older column into this column's layer `layer`, counted from 0."""
        if layer == 0 or not len(self.links):
            return []
        return list(self.alpha[layer - 1, :, None, None] * self.links[layer - 1])


class PNN(GradientMethod):
    """h_i^k = relu(W_i^k h_{i−1}^k + Σ_{j<k} α_i^{kj} U_i^{kj} h_{i−1}^j); column k alone learns.

    With such linear links, columns 0 … k side by side are one ReLU network of k + 1 times the
    width whose matrices are block lower triangular. That is how it is trained and planned with.
    """

    conditionings = ("input",)
    one_layout = False

    def _prepare(self) -> None:
        self.columns = nn.ModuleList()

    def layout(self, task: int) -> MLPLayout:
        columns = min(task, self.tasks - 1) + 1
        inputs, *hidden, outputs = self.model.layout.sizes
        return MLPLayout([inputs, *(columns * width for width in hidden), outputs])

    def _add_task(self) -> None:
        column = Column(self.model.layout, len(self.columns), self.generator)
        self.columns.append(column.to(self.sampler.device))

    def _weights(self, task: int) -> Tensor:
        columns = [column for column in self.columns[: task + 1] if isinstance(column, Column)]
        layers = [self.model.layout.split(column.own) for column in columns]
        count = len(self.model.layout.sizes) - 1
        flat: list[Tensor] = []
        for i in range(count):
            # The last layer is that of the newest column alone: the others' answers are not asked.
            rows = [task] if i == count - 1 else range(task + 1)
            matrix = [
                self._row([*columns[k].incoming(i), layers[k][i][0]], task + 1 if i else 1)
                for k in rows
            ]
            flat += [torch.cat(matrix).flatten(), *(layers[k][i][1] for k in rows)]
        return torch.cat(flat)

    def _row(self, blocks: list[Tensor], columns: int) -> Tensor:
        """One column's row of blocks, filled up with zeros to `columns` blocks."""
        missing = [torch.zeros_like(blocks[0])] * (columns - len(blocks))
        return torch.cat([*blocks, *missing], 1)

    def _trained(self) -> list[nn.Parameter]:
        return list(self.columns[-1].parameters())
