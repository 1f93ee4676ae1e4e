"""The gradients of HyperCRL's step on CUDA, where the last layer is read once, not six times.

`hnet.py` is the mathematics; what is here has the same value, derived by hand. θ is the trunk and
the last layer, which is 99.9 % of it. Autograd sees the trunk, and the loss as a function of the
written weights; what is between is linear, and one kernel forms all that concerns it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hypercrl.dynamics import ChunkedHypernetwork, Hypernetwork
from hypercrl.methods.look_ahead import moments_of, settings_of
from hypercrl_kernels.training import MOST_TASKS, adam_ahead, regularised_head


def why_not_fused(
    hypernetwork: Hypernetwork | ChunkedHypernetwork,
    old_tasks: int,
    own_terms: str | None,
    has_memory: bool,
    on_gpu: bool,
) -> str | None:
    """Why a step cannot take `fused_gradients`; None: it can, and does.

    Args:
        old_tasks: t, tasks that R is about.
        own_terms: what a method's loss or R has beyond those of `Hnet`, if anything.
        has_memory: whether the dynamics model has a memory that is trained along.
        on_gpu: whether the parameters are on CUDA.
    """
    if own_terms is not None:
        return f"the kernel does not form all of the method's gradient: {own_terms}"
    if has_memory:
        return "a memory is trained along, through the gradient of the written weights"
    if isinstance(hypernetwork, ChunkedHypernetwork):
        return "a chunked hypernetwork has no last layer of its own for each weight"
    if hypernetwork.trunk_numel == 0:
        return "a hypernetwork without a hidden layer has no trunk"
    if old_tasks == 0:
        return "there is no old task yet, and so no R"
    if old_tasks > MOST_TASKS:
        return f"the kernel holds {MOST_TASKS} old tasks at most, not {old_tasks}"
    if not on_gpu:
        return "the parameters are not on CUDA"
    return None


def fused_gradients(
    net: Hypernetwork,
    adam: torch.optim.Adam,
    embedding: Tensor,
    losses: Callable[[Tensor], tuple[Tensor, Tensor]],
    old: Tensor,
    targets: Tensor,
    chosen: Tensor | None,
    strength: float,
) -> tuple[Tensor, Tensor]:
    """Set the gradients of the task loss + strength · R, as `Hnet` does by autograd.

    Args:
        net: the hypernetwork; its θ gets a gradient.
        adam: θ's optimiser, for the look-ahead Δθ.
        embedding: e_t [E], which gets the gradient of the task loss.
        losses: from written weights [P] to the task loss and to what is back-propagated.
        old: [n, E], embeddings of the old tasks that R is the mean over.
        targets: [t, P], W* of every old task.
        chosen: [n], which of them `old` are; None: all.
        strength: β B.

    Returns:
        Task loss and R.
    """
    theta, cut = net.theta, net.trunk_numel
    moments, settings = moments_of(adam, theta), settings_of(adam)
    theta.grad = torch.empty_like(theta)
    trunk, head = theta.detach().tensor_split([cut])
    trunk.requires_grad_().grad = theta.grad[:cut].zero_()
    weight, bias = net.layout.split(theta.detach())[-1]

    hidden = net.features(embedding[None], trunk)
    weights = torch.addmm(bias, hidden.detach(), weight.mT)[0].requires_grad_()
    loss, total = losses(weights)
    total.backward()
    assert trunk.grad is not None
    assert weights.grad is not None
    hidden.backward(weights.grad[None] @ weight)

    ahead = adam_ahead(trunk.detach(), trunk.grad, moments.part(0, cut), settings)
    ahead.requires_grad_().grad = trunk.grad
    old_hidden = net.features(old, ahead)
    regulariser, old_gradient = regularised_head(
        head,
        theta.grad[cut:],
        moments.part(cut),
        settings,
        weights.grad,
        hidden.detach()[0],
        old_hidden.detach(),
        targets,
        chosen,
        strength,
    )
    old_hidden.backward(old_gradient)
    return loss, regulariser
