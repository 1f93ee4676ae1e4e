"""A network laid out once for the rollout kernel, instead of at every rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hypercrl_kernels.planning.rollout_reference import Layers

Precision = Literal["bf16", "tf32x3", "ieee"]
"""Of the kernel's products, always summed in float32: bfloat16 operands (about 3 digits), float32
from three TF32 products (about 6), or plain float32 (slow, no matrix unit)."""

MAX_WIDTH = 512
MAX_INPUTS = 128
_SMALLEST = 16  # a matrix instruction multiplies at least this many rows


@dataclass(frozen=True)
class PackedLayers:
    """Weights padded with zeros to one width, which ReLU keeps zero, so that results are exact.

    N networks: one shared by all robots (N = 1), or one per robot (N = B). L + 1 hidden layers,
    padded to width W; inputs and outputs padded to R rows, states first, then controls.

    Attributes:
        first: [N, W, R] in the precision's dtype.
        first_exact: [N, W, R] float32; what the start of a rollout is multiplied with.
        hidden: [N, L, W, W] in the precision's dtype.
        last: [N, R, W] in the precision's dtype, rows beyond the outputs are zero.
        bias: [N, L + 1, W] float32, of the hidden layers.
        last_bias: [N, R] float32.
        sizes: true widths, from the inputs to the outputs.
        precision: of the products.
    """

    first: Tensor
    first_exact: Tensor
    hidden: Tensor
    last: Tensor
    bias: Tensor
    last_bias: Tensor
    sizes: tuple[int, ...]
    precision: Precision

    @property
    def networks(self) -> int:
        return self.first.shape[0]

    @property
    def width(self) -> int:
        return self.first.shape[1]

    @property
    def rows(self) -> int:
        return self.first.shape[2]


def layer_sizes(layers: Layers) -> tuple[int, ...]:
    """Widths from the inputs of the first layer to the outputs of the last."""
    return (layers[0][0].shape[-1], *(weight.shape[-2] for weight, _ in layers))


def why_not_packed(layers: Layers, precision: Precision) -> str | None:
    """The reason why the kernel does not take this network, None where it does."""
    sizes = layer_sizes(layers)
    if layers[0][0].dtype != torch.float32:
        return f"its weights are {layers[0][0].dtype}, not torch.float32"
    if len(layers) == 1:
        return "it has no hidden layer"
    if max(sizes[1:-1]) > MAX_WIDTH:
        return f"a hidden layer is wider than {MAX_WIDTH}"
    if sizes[0] > MAX_INPUTS:
        return f"it has more than {MAX_INPUTS} inputs"
    if precision not in ("bf16", "tf32x3", "ieee"):
        raise ValueError(f"precision is 'bf16', 'tf32x3' or 'ieee', not {precision!r}")
    return None


def pack_layers(
    layers: Layers, precision: Precision = "bf16", out: PackedLayers | None = None
) -> PackedLayers:
    """Lay a network out for the kernel.

    Args:
        layers: float32, at least one hidden layer, hidden widths up to 512, up to 128 inputs.
        precision: of the kernel's products.
        out: written in place if given, so that a captured CUDA graph sees the new weights.

    Raises:
        ValueError: a network that the kernel does not take, or another shape than `out` holds.
    """
    if reason := why_not_packed(layers, precision):
        raise ValueError(f"this network cannot be packed: {reason}; give the plain layers instead")
    sizes = layer_sizes(layers)
    if out is None:
        out = _empty(layers, sizes, precision)
    elif (out.sizes, out.networks, out.precision) != (sizes, _networks(layers), precision):
        raise ValueError(
            f"out holds {out.networks} {out.precision} network(s) of sizes {out.sizes}; "
            f"pack {_networks(layers)} of sizes {sizes} in {precision} into a new one"
        )
    weights = [weight if weight.dim() == 3 else weight[None] for weight, _ in layers]
    biases = [bias if bias.dim() == 2 else bias[None] for _, bias in layers]
    _put(out.first, weights[0])
    _put(out.first_exact, weights[0])
    for i, weight in enumerate(weights[1:-1]):
        _put(out.hidden[:, i], weight)
    _put(out.last, weights[-1])
    for i, bias in enumerate(biases[:-1]):
        _put(out.bias[:, i], bias)
    _put(out.last_bias, biases[-1])
    return out


def _empty(layers: Layers, sizes: Sequence[int], precision: Precision) -> PackedLayers:
    networks, hidden = _networks(layers), len(layers) - 2
    width, rows = _padded(max(sizes[1:-1])), _padded(sizes[0])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    like = layers[0][0].new_zeros
    return PackedLayers(
        first=like(networks, width, rows, dtype=dtype),
        first_exact=like(networks, width, rows),
        hidden=like(networks, hidden, width, width, dtype=dtype),
        last=like(networks, rows, width, dtype=dtype),
        bias=like(networks, hidden + 1, width),
        last_bias=like(networks, rows),
        sizes=tuple(sizes),
        precision=precision,
    )


def _networks(layers: Layers) -> int:
    weight = layers[0][0]
    return len(weight) if weight.dim() == 3 else 1


def _padded(size: int) -> int:
    return max(_SMALLEST, 1 << (size - 1).bit_length())


def _put(target: Tensor, value: Tensor) -> None:
    corner = (slice(None), *(slice(0, size) for size in value.shape[1:]))
    target[corner].copy_(value)
