"""HyperCRL's training step in eight operations.

`hnet.py` is the mathematics; what is here has the same value, with the gradients derived by hand.
θ is the trunk and the last layer, which is 99.9 % of it.

1. `written_weights`: trunk and last layer for e_t.
2. `loss_gradient`: the dynamics network forward and back, a kernel for each layer and direction.
3. `written_gradient`: what l1 adds, and the product with the last layer's matrix.
4. `trunk_ahead`: the trunk back, Δθ of it, and forward for the old embeddings.
5. `regularised_head`: all that concerns the last layer.
6. `trunk_back`: R's gradient of the trunk, in shares of the old tasks.
7. `gradient_norms`: their sum, and the norms.
8. `clipped_adam`: Adam's step on θ and e_t.

On CUDA all others are one kernel each, but 1 to 4 of an ensemble are torch operations. Whatever is
summed over programs is summed in a fixed order, so that a step is reproducible. On a CPU they are
torch operations, 5 and 8 a chunk at a time: time goes into passes over θ, its two moments and its
gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hypercrl.dynamics import ChunkedHypernetwork, DynamicsModel, Hypernetwork
from hypercrl.methods.clipping import clip_and_step_others
from hypercrl.methods.look_ahead import moments_of, settings_of
from hypercrl.replay.transitions import Batch
from hypercrl_kernels.training import (
    AdamMoments,
    Shares,
    Trained,
    clipped_adam,
    gradient_norms,
    last_outputs,
    regularised_head,
    trunk_ahead,
    trunk_back,
    written_gradient,
    written_weights,
)


def why_not_fused(
    hypernetwork: Hypernetwork | ChunkedHypernetwork,
    own_terms: str | None,
    has_memory: bool,
) -> str | None:
    """Why a step cannot be a `fused_step`; None: it can, and is.

    Args:
        own_terms: what a method's loss or R has beyond those of `Hnet`, if anything.
        has_memory: whether the dynamics model has a memory that is trained along.
    """
    if own_terms is not None:
        return f"the kernels do not form all of the method's gradient: {own_terms}"
    if has_memory:
        return "a memory is trained along, through the gradient of the written weights"
    if isinstance(hypernetwork, ChunkedHypernetwork):
        return "a chunked hypernetwork has no last layer of its own for each weight"
    if not hypernetwork.trunk.numel:
        return "a hypernetwork without a hidden layer has no trunk"
    return None


def fused_step(
    net: Hypernetwork,
    adam: torch.optim.Adam,
    embedding: nn.Parameter,
    model: DynamicsModel,
    batch: Batch,
    l1: float,
    old: Tensor,
    targets: Tensor,
    chosen: Tensor | None,
    beta: float,
    limit: float,
) -> Tensor:
    """A training step, as `Hnet` does it by autograd; gradients are left as before clipping.

    Args:
        net: the hypernetwork; its θ is trained.
        adam: optimiser of θ, the embedding and what the model trains along.
        embedding: e_t [E], which is trained; of an ensemble [M, E].
        model: what the written weights are for.
        batch: B transitions of the present task, for each member.
        l1: λ, weight of Σ|written| in the mean loss.
        old: [n, E], embeddings of the old tasks that R is the mean over; n may be 0.
        targets: [t, P], W* of every old task.
        chosen: [n], which of them `old` are; None: all.
        beta: β.
        limit: norm that gradients are clipped to.

    Returns:
        [3]: mean loss, R, and the norm of the gradient of θ and of the model's own parameters.
    """
    theta, trunk, settings = net.theta, net.trunk, settings_of(adam)
    cut, width = trunk.numel, trunk.sizes[-1]
    members, size = (1, len(batch)) if embedding.dim() == 1 else batch.obs.shape[:2]
    theta.grad = torch.empty_like(theta)
    flat, head = theta.detach().tensor_split([cut])
    flat_gradient, head_gradient = theta.grad.tensor_split([cut])
    moments = moments_of(adam, theta)
    flat_moments, head_moments = moments.part(0, cut), moments.part(cut)

    outputs, weights = written_weights(theta.detach(), embedding.detach(), trunk)
    losses, partials = model.loss_gradient(weights, batch)
    slope, products = written_gradient(head, partials, weights, width, l1 * size / members)
    ahead, old_outputs, embedding.grad = trunk_ahead(
        flat,
        flat_gradient,
        flat_moments,
        settings,
        embedding.detach(),
        outputs,
        products,
        old,
        trunk,
    )
    hidden = last_outputs(outputs, embedding, trunk)
    old_hidden = old_outputs[len(old_outputs) - len(old) * width :].view(len(old), width)
    regularisers, squares, old_slopes = regularised_head(
        head,
        head_gradient,
        head_moments,
        settings,
        slope,
        hidden,
        old_hidden,
        targets,
        chosen,
        beta * size,
    )
    trunk_gradients = trunk_back(ahead, old, old_outputs, old_slopes, trunk)
    others = [p for p in model.parameters() if p.grad is not None]
    apart = [p.grad.square().sum()[None] for p in others if p.grad is not None]
    if apart:
        squares = torch.cat([squares, *apart])
    shares = Shares(losses, regularisers, squares, trunk_gradients)
    count, mean, square = moments_of(adam, embedding)
    own_moments = AdamMoments(count, mean.flatten(), square.flatten())
    own = Trained(embedding.detach().flatten(), embedding.grad.flatten(), own_moments)
    norms = gradient_norms(flat_gradient, own.gradient, shares, (moments.step, count))
    clipped_adam(
        Trained(theta.detach(), theta.grad, moments),
        own,
        settings,
        norms[2:],
        limit,
    )
    clip_and_step_others(adam, [theta, embedding], others, norms[2], limit)
    return norms[:3]
