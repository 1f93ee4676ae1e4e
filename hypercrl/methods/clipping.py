"""Clip a hypernetwork's gradient and its embedding's, each by its own norm; take Adam's step."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from hypercrl.methods.look_ahead import moments_of, settings_of
from hypercrl_kernels.training import adam_step


def clip_and_step(
    adam: torch.optim.Adam,
    theta: nn.Parameter,
    embedding: nn.Parameter,
    others: Sequence[nn.Parameter],
    limit: float,
    one_pass: bool,
) -> Tensor:
    """Clip to the norm `limit` and take Adam's step of all that it optimises.

    The task embedding has no part in the regulariser, and is clipped on its own.

    Args:
        theta: of the hypernetwork, flat.
        others: parameters of the model that count in θ's norm.
        one_pass: clip and step in one kernel each for θ and the embedding, whose gradients stay as
            they are; otherwise torch's Adam takes the step.

    Returns:
        The norm of the gradient of θ and `others`, before clipping.
    """
    norm = get_total_norm(_pieces([theta, *others]))
    if not one_pass:
        clip_grad_norm_([embedding], limit)
        clip_grads_with_norm_([theta, *others], limit, norm)
        adam.step()
        return norm
    assert embedding.grad is not None
    _clipped_step(adam, embedding, torch.linalg.vector_norm(embedding.grad), limit)
    _clipped_step(adam, theta, norm, limit)
    clip_and_step_others(adam, [theta, embedding], others, norm, limit)
    return norm


def clip_and_step_others(
    adam: torch.optim.Adam,
    stepped: Sequence[nn.Parameter],
    others: Sequence[nn.Parameter],
    norm: Tensor,
    limit: float,
) -> None:
    """Clip `others` from `norm` to `limit`; take Adam's step of all but those that had theirs."""
    if others:
        clip_grads_with_norm_(others, limit, norm)
    if sum(len(group["params"]) for group in adam.param_groups) > len(stepped):
        with _left_out(stepped):
            adam.step()


def _clipped_step(
    adam: torch.optim.Adam, parameter: nn.Parameter, norm: Tensor, limit: float
) -> None:
    """Take Adam's step of one parameter alone, its gradient clipped from `norm` to `limit`."""
    assert parameter.grad is not None
    moments = moments_of(adam, parameter)
    adam_step(parameter, parameter.grad, moments, settings_of(adam), norm, limit)


@contextmanager
def _left_out(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Optimisers pass over a parameter without a gradient."""
    gradients = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    yield
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient


def _pieces(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients, cut up: a CPU adds the squares of millions in float32 to four digits only."""
    return [part for p in parameters if p.grad is not None for part in p.grad.split(1 << 16)]
