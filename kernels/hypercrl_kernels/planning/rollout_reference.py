"""The rollout in torch operations: the CPU path, and what the kernel is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hypercrl_kernels.side_by_side import cores, side_by_side

FEWEST_ROWS = 64
"""Of a product that are worth a thread of their own."""

Layers = Sequence[tuple[Tensor, Tensor]]
"""Per layer (weight, bias): weight [out, in] and bias [out], shared by all robots, or weight
[B, out, in] and bias [B, out], one network a robot."""


@dataclass(frozen=True)
class GaussianLayers:
    """A network f with a second output layer g on the same last hidden layer, a log-variance.

    The next state is s + f + σ ε with the variance σ² = scale² (least + 1 / (1/most + e^{−g})):
    e^g between two bounds. Softplus bounds of a log-variance (Chua et al. 2018, appendix A.1) are
    this with least = e^{s_min} and most = e^{s_max}.

    Attributes:
        mean: of f.
        head: weight [O, W] and bias [O] of g, or one of each per robot.
        bounds: [3, O]: least, 1/most, scale.
    """

    mean: Layers
    head: tuple[Tensor, Tensor]
    bounds: Tensor


@dataclass(frozen=True)
class LinearPolicies:
    """K policies u = clip(G s + o, low, high) for each of B robots, followed for H steps.

    Attributes:
        gains: G, [B, K, A, O]; offsets: o, [B, K, A].
        low, high: [A] bounds of the controls.
        horizon: H.
    """

    gains: Tensor
    offsets: Tensor
    low: Tensor
    high: Tensor
    horizon: int

    def __call__(self, states: Tensor) -> Tensor:
        """Controls [B, K, A] in states [B, K, O]."""
        controls = (self.gains * states[..., None, :]).sum(-1) + self.offsets
        return controls.clamp(self.low, self.high)


def rollout_reference(
    layers: Layers | GaussianLayers,
    state: Tensor,
    controls: Tensor,
    noise: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """Trajectories [B, K, H + 1, O] in the precision of the tensors; see `rollout`.

    A layer computes in the dtype of its weights, and states have that of the controls. Particles
    that `side_by_side` has cores for are rolled out by themselves, through the whole horizon.
    """
    robots, particles, horizon, _ = controls.shape
    width = state.shape[-1]
    inputs = controls.new_empty(horizon + 1, robots, particles, width + controls.shape[-1])
    inputs[:horizon, ..., width:] = controls.permute(2, 0, 1, 3)
    inputs[0, ..., :width] = state[:, None]
    rows = _in_rows(layers, inputs)
    deviates = None if noise is None else _in_rows(layers, noise.permute(2, 0, 1, 3))

    def unroll(part: slice) -> None:
        own = None if deviates is None else deviates[..., part, :]
        _unroll(layers, width, rows[..., part, :], own)

    if order is not None:
        _unroll(layers, width, rows, deviates, order=order)
        return inputs[..., :width].permute(1, 2, 0, 3)
    count = rows.shape[-2]
    pieces = min(cores(), max(1, rows[0, ..., 0].numel() // FEWEST_ROWS))
    size = -(-count // pieces)
    side_by_side([partial(unroll, slice(at, at + size)) for at in range(0, count, size)])
    return inputs[..., :width].permute(1, 2, 0, 3)


def follow_reference(
    layers: Layers | GaussianLayers,
    state: Tensor,
    policies: LinearPolicies,
    noise: Tensor | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Trajectories [B, K, H + 1, O] and the controls [B, K, H, A] along them; see `follow`."""
    robots, particles, size, width = policies.gains.shape
    inputs = state.new_empty(policies.horizon + 1, robots, particles, width + size)
    inputs[0, ..., :width] = state[:, None]
    deviates = None if noise is None else _in_rows(layers, noise.permute(2, 0, 1, 3))

    def act(t: int) -> None:
        inputs[t, ..., width:] = policies(inputs[t, ..., :width])

    _unroll(layers, width, _in_rows(layers, inputs), deviates, act, order)
    inputs = inputs.permute(1, 2, 0, 3)
    return inputs[..., :width], inputs[:, :, :-1, width:]


def _in_rows(layers: Layers | GaussianLayers, values: Tensor) -> Tensor:
    """[T, B, K, n] with what one product multiplies in one dimension: [T, B K, n] of a network that
    all robots share."""
    mean = layers.mean if isinstance(layers, GaussianLayers) else layers
    return values if mean[0][0].dim() == 3 else values.flatten(1, 2)


def _unroll(
    layers: Layers | GaussianLayers,
    width: int,
    inputs: Tensor,
    noise: Tensor | None,
    act: Callable[[int], None] | None = None,
    order: Tensor | None = None,
) -> None:
    """Fill in the states of `inputs` [H + 1, (B,) rows, O + A] after the first.

    One buffer holds [state, control] for every step: a layer reads a row block of it in place.

    Args:
        width: O.
        noise: [H, (B,) rows, O].
        act: writes the controls of a step, where they are not there yet.
    """
    gaussian = layers if isinstance(layers, GaussianLayers) else None
    layers = layers.mean if isinstance(layers, GaussianLayers) else layers
    rows = inputs.shape[1:-1]
    steps, states = inputs.unbind(), inputs[..., :width].unbind()
    *hidden, (weight, bias) = layers
    after = [layer[0].dtype for layer in layers[1:]]
    units = [
        (w.mT, b[..., None, :], *_buffers(w.new_empty(*rows, w.shape[-2]), dtype))
        for (w, b), dtype in zip(hidden, after, strict=True)
    ]
    # Few outputs are multiplied faster as the rows of a product than as its columns.
    offset, change = bias[..., None], weight.new_empty(*weight.shape[:-2], width, rows[-1])
    affine = torch.baddbmm if weight.dim() == 3 else torch.addmm
    for t in range(len(inputs) - 1):
        if act is not None:
            act(t)
        x = steps[t] if order is None else _exchanged(steps[t], order[t])
        x = x.to(layers[0][0].dtype)
        for matrix, shift, product, kept, bits in units:
            affine(shift, x, matrix, out=product)
            x = kept.copy_(product) if kept is not product else product
            bits.relu_()
        affine(offset, weight, x.mT, out=change)
        moved = change.mT if order is None else _returned(change.mT, order[t])
        torch.add(states[t], moved, out=states[t + 1])
        if gaussian is not None and noise is not None:
            deviation = _deviation(gaussian, x.mT).mT.to(inputs.dtype)
            if order is not None:
                deviation = _returned(deviation, order[t])
            states[t + 1].addcmul_(deviation, noise[t])


def _buffers(product: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """For a layer's product; for what the next layer, which is of this type, reads of it; and for
    that in the form in which `relu_` is quickest.

    On a CPU `relu_` of bfloat16 goes by way of float32 and takes five times as long as that of its
    bits as integers: a number with a sign is a negative one, and comes to 0. So does a NaN with a
    sign, of ∞ − ∞: where there is such a one the state is beyond all bounds already.
    """
    kept = product if product.dtype == dtype else torch.empty_like(product, dtype=dtype)
    return product, kept, kept.view(torch.int16) if dtype == torch.bfloat16 else kept


def _exchanged(x: Tensor, order: Tensor) -> Tensor:
    """What member m of each robot goes on with: x [B M, K, …] of the particles order [B, M, K]."""
    each = x.view(*order.shape, -1)
    index = order[..., None].expand_as(each)
    return each.gather(1, index).view_as(x)


def _returned(x: Tensor, order: Tensor) -> Tensor:
    """The inverse of `_exchanged`."""
    each = x.reshape(*order.shape, -1)
    index = order[..., None].expand_as(each)
    return torch.empty_like(each).scatter_(1, index, each).view(x.shape)


def _deviation(layers: GaussianLayers, x: Tensor) -> Tensor:
    """Standard deviation [..., O, rows] of the next state from the last hidden layer's x."""
    weight, bias = layers.head
    least, inverse_most, scale = layers.bounds[..., None]
    raw = (weight @ x + bias[..., None]).to(layers.bounds.dtype)
    return scale * (least + (inverse_most + (-raw).exp()).reciprocal()).sqrt()
