"""The first task's network, and a change of low rank to it for every further task.

Hu et al., "LoRA: Low-rank adaptation of large language models", ICLR 2022, equation 3.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypercrl.base.initial_weights import xavier_uniform
from hypercrl.base.settings import number
from hypercrl.dynamics import MLPLayout
from hypercrl.methods.base import MethodConfig
from hypercrl.methods.gradient import GradientMethod


@dataclass
class LoraConfig(MethodConfig):
    """What a further task may change."""

    rank: int = number(4, least=1, help="of the change to each matrix")


class Lora(GradientMethod):
    """W_t = W_1 + B_t A_t with B [out, r] and A [r, in], and b_t = b_1 + Δb_t, of every layer.

    W_1 and b_1 are those of the first task as its training left them: nothing that is kept is
    trained again, so that nothing is forgotten, and a task costs Σ r (in + out) + out numbers in
    place of Σ in · out + out. B and Δb are 0 at first: a task begins with the first one's network.
    A change never has a higher rank than its matrix.
    """

    ensembles = True
    conditionings = ("input", "film")
    config: LoraConfig

    def _prepare(self) -> None:
        self.first = nn.ParameterList()
        self.changes = nn.ModuleList()

    def _add_task(self) -> None:
        layout, members, generator = self.model.layout, self.members, self.generator
        if self.first:
            change = Change(layout, self.config.rank, members, generator)
            self.changes.append(change.to(self.sampler.device))
        else:
            initial = layout.initial(generator, members)
            self.first.append(nn.Parameter(initial.to(self.sampler.device)))

    def _weights(self, task: int) -> Tensor:
        first = self.first[0]
        if not task:
            return first
        layers = self.model.layout.split(first.detach())
        pairs = zip(layers, self.changes[task - 1](), strict=True)
        flat = [(w + dw, b + db) for (w, b), (dw, db) in pairs]
        lead = first.shape[:-1]
        return torch.cat([t.reshape(*lead, -1) for layer in flat for t in layer], -1)

    def _trained(self) -> list[nn.Parameter]:
        return list(self.changes[-1].parameters()) if self.changes else list(self.first)


class Change(nn.Module):
    """What is added to each layer's weight and bias.

    Args:
        layout: of the main network.
        rank: r, of matrices that are larger than r in both directions.
        members: M; all shapes have M in front where it is above 1.
        generator: CPU generator of A; B and Δb are 0.
    """

    def __init__(
        self, layout: MLPLayout, rank: int, members: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        lead = (members,) if members > 1 else ()
        pairs = list(itertools.pairwise(layout.sizes))
        ranks = [min(rank, *pair) for pair in pairs]

        def drawn(shape: tuple[int, int]) -> nn.Parameter:
            each = [xavier_uniform(shape, generator) for _ in range(members)]
            return nn.Parameter(torch.stack(each) if lead else each[0])

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*lead, *shape))

        self.down = nn.ParameterList(drawn((r, i)) for r, (i, _) in zip(ranks, pairs, strict=True))
        self.up = nn.ParameterList(zeros(o, r) for r, (_, o) in zip(ranks, pairs, strict=True))
        self.shift = nn.ParameterList(zeros(o) for _, o in pairs)

    def forward(self) -> list[tuple[Tensor, Tensor]]:
        """[out, in] and [out] of each layer."""
        parts = zip(self.up, self.down, self.shift, strict=True)
        return [(up @ down, shift) for up, down, shift in parts]
