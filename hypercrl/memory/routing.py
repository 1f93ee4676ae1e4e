"""Which of several memories a step goes to."""

import torch
from torch import Tensor


def route(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Softmax over N memories, and the `count` largest of it.

    Args:
        scores: [..., N].

    Returns:
        Probabilities [..., N], and 1 for the chosen, 0 for the others, [..., N].
    """
    shares = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))
    return shares, largest(shares, count)


def largest(scores: Tensor, count: int) -> Tensor:
    """1 for the `count` largest of the last axis, 0 for the others."""
    return torch.zeros_like(scores).scatter(-1, scores.topk(count).indices, 1.0)


def beside_shared(x: Tensor) -> Tensor:
    """x [..., N] of the routed memories, and 1 for one more that is always on, [..., N + 1]."""
    return torch.nn.functional.pad(x, (0, 1), value=1.0)


def combine(o: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i o_i over N routed memories, and one more that is always on, w = 1.

    Args:
        o: [..., (N + 1) H, V], the fixed memory last.
        weights: [..., N].

    Returns:
        [..., H, V].
    """
    weights = beside_shared(weights)
    o = o.unflatten(-2, (weights.shape[-1], -1))
    return (weights[..., None, None] * o).sum(-3)


def renormalised(shares: Tensor, chosen: Tensor) -> Tensor:
    """The chosen memories' probabilities as weights that sum to 1, the others' zero, [..., N]."""
    weights = shares * chosen
    return weights / weights.sum(-1, keepdim=True)


def balance_loss(weights: Tensor, chosen: Tensor) -> Tensor:
    """N Σ f_i p_i of each sequence, their mean: most where one memory does all.

    f_i is the fraction of a sequence's steps that chose i and p_i the mean of its weight. With all
    probabilities for weights it is that of Fedus et al. 2022 (Switch Transformer), eq. 4, for
    k choices a step; with those of the chosen alone (`renormalised`), that of Du et al. 2025 (MoM),
    as their program computes it. Where all memories have as much to do, both are k.

    Args:
        weights, chosen: [..., T, N].
    """
    return weights.shape[-1] * (chosen.mean(-2) * weights.mean(-2)).sum(-1).mean()
