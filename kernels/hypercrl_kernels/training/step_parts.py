"""What the kernels of a training step hand to one another."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments


class Shares(NamedTuple):
    """What sums to the numbers of a step, each over its first dimension.

    Attributes:
        losses: [n], of the task loss.
        regularisers: [n], of R.
        squares: [n], of the squared norm of the gradient beyond the trunk's.
        trunk: [n, trunk], of R's gradient with respect to the trunk.
    """

    losses: Tensor
    regularisers: Tensor
    squares: Tensor
    trunk: Tensor


class Trained(NamedTuple):
    """A flat parameter, its gradient and its state of Adam."""

    parameter: Tensor
    gradient: Tensor
    moments: AdamMoments


class Scales(NamedTuple):
    """Means and scales by which inputs [O + A] and targets [O] are normalised."""

    input_mean: Tensor
    input_scale: Tensor
    target_mean: Tensor
    target_scale: Tensor


class NetworkGradient(NamedTuple):
    """Shares of the loss, divided by the rows of the batch, [n], and of its gradient, [n, P]."""

    losses: Tensor
    gradients: Tensor


class TrunkAhead(NamedTuple):
    """The trunk where Adam's next step leads, and what old embeddings become there.

    Attributes:
        ahead: as the trunk, flat.
        old_outputs: [T, width] of all layers, one after another, flat.
        embedding_gradient: [E], or [M, E], of the task loss.
    """

    ahead: Tensor
    old_outputs: Tensor
    embedding_gradient: Tensor


class WrittenGradient(NamedTuple):
    """The gradient with respect to what is written, and what it is to the trunk.

    Attributes:
        slope: [P], or [M, P] of M networks.
        products: [n, w], shares of its product with the last layer's matrix; or [M, w], of each.
    """

    slope: Tensor
    products: Tensor
