"""The update of CEM in torch operations: what the elites kernel is to compute."""

from typing import NamedTuple

import torch
from torch import Tensor


class Elites(NamedTuple):
    """Of the best sequences: mean and standard deviation, and the very best; each [B, H, A]."""

    mean: Tensor
    std: Tensor
    best: Tensor


def elite_statistics_reference(
    returns: Tensor, actions: Tensor, elites: int, min_std: Tensor
) -> Elites:
    """`elite_statistics` in torch operations."""
    returns = returns.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    index = returns.sort(dim=1, descending=True, stable=True).indices[:, :elites, None, None]
    chosen = actions.gather(1, index.expand(-1, -1, *actions.shape[2:]))
    std = torch.maximum(chosen.std(1, correction=0), min_std)
    return Elites(chosen.mean(1), std, chosen[:, 0])
