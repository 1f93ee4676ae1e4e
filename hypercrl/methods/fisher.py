"""How much each number of a network matters to what the network predicts."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vmap

from hypercrl.dynamics import DynamicsModel
from hypercrl.replay.transitions import Batch, random_rows

CHUNK = 100
"""Transitions whose gradients are held at a time."""


def fisher_diagonal(
    network: Callable[[Tensor, Tensor], Tensor],
    parameters: Tensor,
    model: DynamicsModel,
    batch: Batch,
    samples: int,
    sampler: torch.Generator,
) -> Tensor:
    """Diagonal of the Fisher information of a network's Gaussian prediction, averaged over inputs.

    F_i = E_x E_{y ~ p(y|x)} (∂ log p(y|x) / ∂θ_i)², with one y drawn per input from the model's own
    distribution of the normalised change (variance 1 where it is not learned). Taken at the
    observed y, as the empirical Fisher is, it would vanish with the residuals of a good fit and
    protect nothing (Kunstner et al., NeurIPS 2019). What has not moved yet is not predicted, and
    has no part in it.

    Args:
        network: (parameters [Q], inputs [in]) → raw outputs [out].
        parameters: [Q], where F is taken.
        model: scales the inputs and reads the outputs.
        batch: transitions to average over.
        samples: how many of them, drawn with replacement.
        sampler: of the draws.

    Returns:
        [Q], no gradient recorded.
    """

    def log_likelihood(parameters: Tensor, x: Tensor, noise: Tensor) -> Tensor:
        mean, logvar = model.distribution(network(parameters, x))
        drawn = (mean + noise * (0.5 * logvar).exp()).detach()
        squares = (drawn - mean).square() * (-logvar).exp()
        return -0.5 * ((squares + logvar) * model.target_normaliser.moving()).sum()

    rows = batch.at(random_rows(len(batch), samples, sampler))
    x = model.inputs(rows.obs, rows.action)
    noise = torch.randn(
        samples, model.obs_size, generator=sampler, device=sampler.device, dtype=x.dtype
    )
    gradients = vmap(grad(log_likelihood), (None, 0, 0))
    total = torch.zeros_like(parameters)
    for part, noise_part in zip(x.split(CHUNK), noise.split(CHUNK), strict=True):
        total += gradients(parameters.detach(), part, noise_part).detach().square().sum(0)
    return total / samples
