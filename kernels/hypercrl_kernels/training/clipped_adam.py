"""The end of a hypernetwork's training step: norms, clipping, and Adam on θ and an embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_chunked import clipped_step_chunked
from hypercrl_kernels.training.adam_reference import AdamSettings
from hypercrl_kernels.training.step_parts import Shares, Trained


@torch.no_grad()
def gradient_norms(
    trunk_gradient: Tensor,
    embedding_gradient: Tensor,
    shares: Shares,
    steps: tuple[Tensor, Tensor],
) -> Tensor:
    """[4]: loss, R, norm of θ's gradient and of the embedding's.

    R's gradient is added to the trunk's, and the step that is about to be taken to the counts.
    One Triton kernel on CUDA, torch operations elsewhere.

    Args:
        trunk_gradient: of the task loss, changed.
        embedding_gradient: [E].
        steps: [] each, taken by Adam on θ and on the embedding, changed.
    """
    if trunk_gradient.device.type == "cuda":
        from hypercrl_kernels.training.clipped_adam_launch import launch_gradient_norms

        return launch_gradient_norms(trunk_gradient, embedding_gradient, shares, steps)
    trunk_gradient += shares.trunk.sum(0)
    norm = (shares.squares.sum() + trunk_gradient.square().sum()).sqrt()
    for step in steps:
        step += 1
    loss, regulariser = shares.losses.sum(), shares.regularisers.sum()
    return torch.stack([loss, regulariser, norm, embedding_gradient.norm()])


@torch.no_grad()
def clipped_adam(
    theta: Trained, embedding: Trained, settings: AdamSettings, norms: Tensor, limit: float
) -> None:
    """Adam's step on both, in place, each on its gradient · min(1, limit / (its norm + 10⁻⁶)).

    One Triton kernel on CUDA, torch operations elsewhere.

    Args:
        theta, embedding: their steps count the one to be taken already.
        norms: [2], as `torch.nn.utils.clip_grads_with_norm_` uses them.
    """
    if theta.parameter.device.type == "cuda":
        from hypercrl_kernels.training.clipped_adam_launch import launch_clipped_adam

        launch_clipped_adam(theta, embedding, settings, norms, limit)
        return
    for (parameter, gradient, moments), norm in zip((theta, embedding), norms, strict=True):
        before = moments._replace(step=moments.step - 1)
        clipped_step_chunked(parameter, gradient, before, settings, norm, limit)
