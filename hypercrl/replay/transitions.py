"""Batches of transitions, of one task or of several."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Transitions of one task: [N, O], [N, A], [N, O]."""

    obs: Tensor
    action: Tensor
    next_obs: Tensor

    def __len__(self) -> int:
        return len(self.obs)

    def at(self, index: Tensor) -> "Batch":
        """The transitions at `index` [M]."""
        return Batch(self.obs[index], self.action[index], self.next_obs[index])


@dataclass(frozen=True)
class MixedBatch(Batch):
    """Transitions of several tasks; `task` [N] says of which, counted from 0."""

    task: Tensor


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes held by the tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)


def random_rows(count: Tensor | int, rows: int, generator: torch.Generator) -> Tensor:
    """[rows] indices below `count`, a number or one per row, with replacement; 0 where it is 0.

    `count` may live on the generator's device, so that a CUDA graph follows a store that fills.
    """
    drawn = torch.rand(rows, generator=generator, device=generator.device, dtype=torch.float64)
    return (drawn * count).long()
