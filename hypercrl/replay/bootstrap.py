"""Which transitions each member of an ensemble learns from, so that members come to differ.

The Bayesian bootstrap (Rubin, Annals of Statistics 1981): every transition has for every member a
weight ~ Exp(1), and a member's batches are drawn by its weights. Where there are many transitions
the weighted samples say the same, and where there are few they do not. No weight is 0, so that
there is a batch however little is held.
"""

import torch
from torch import Tensor


def bootstrap_weights(members: int, slots: int, generator: torch.Generator) -> Tensor:
    """[M, slots] ~ Exp(1) on the CPU: what a transition in that slot of the replay weighs."""
    return torch.empty(members, slots).exponential_(generator=generator)


def bootstrap_batches(weights: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    """Slots [count, M, size]: so many batches of each member, drawn by its weights.

    Args:
        weights: [M, n] of the slots that are filled; generator: on their device.
    """
    cumulative = weights.double().cumsum(1)
    shape = (len(weights), count * size)
    drawn = torch.rand(shape, generator=generator, device=weights.device, dtype=torch.float64)
    slots = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)
    slots = slots.clamp_max(weights.shape[1] - 1)  # where the product is rounded to the whole sum
    return slots.view(-1, count, size).transpose(0, 1).contiguous()
