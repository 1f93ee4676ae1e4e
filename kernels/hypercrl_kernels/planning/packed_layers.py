"""A network laid out once for the rollout kernel, instead of at every rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hypercrl_kernels.planning.rollout_reference import GaussianLayers, Layers

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
    padded to width W; states and controls together padded to S rows.

    Attributes:
        first: [N, W, S] in the precision's dtype.
        first_exact: [N, W, S] float32; what the start of a rollout is multiplied with.
        hidden: [N, L, W, W] in the precision's dtype.
        fragments: [N, L, W W] int16, in bf16 only: the bits of `hidden`, matrix by matrix in the
            order in which the threads of a program hold them as a left operand.
        last: [N, S, W] in the precision's dtype.
        bias: [N, L + 1, W] float32, of the hidden layers.
        last_bias: [N, S] float32.
        head: of a log-variance, if there is one: [N, S, W] as `last`, [N, S] float32, and [3, S]
            float32, the bounds of `GaussianLayers`.
        sizes: true widths, from the inputs to the outputs.
        precision: of the products.
    """

    first: Tensor
    first_exact: Tensor
    hidden: Tensor
    fragments: Tensor | None
    last: Tensor
    bias: Tensor
    last_bias: Tensor
    head: tuple[Tensor, Tensor, Tensor] | None
    sizes: tuple[int, ...]
    precision: Precision

    @property
    def networks(self) -> int:
        return self.last.shape[0]

    @property
    def matrices(self) -> int:
        """L, weight matrices between hidden layers."""
        return self.hidden.shape[1]

    @property
    def width(self) -> int:
        return self.last.shape[2]

    @property
    def used(self) -> int:
        """The width without its padding."""
        return max(self.sizes[1:-1])

    @property
    def rows(self) -> int:
        """The state's and the control's numbers, padded."""
        return self.last.shape[1]

    @property
    def warps(self) -> int:
        """Warps of a program, 16 rows of a matrix each, again and again: what fragments are for."""
        return _warps(self.width)


def layer_sizes(layers: Layers | GaussianLayers) -> tuple[int, ...]:
    """Widths from the inputs of the first layer to the outputs of the last."""
    layers = mean_layers(layers)
    return (layers[0][0].shape[-1], *(weight.shape[-2] for weight, _ in layers))


def mean_layers(layers: Layers | GaussianLayers) -> Layers:
    """The network that predicts the mean."""
    return layers.mean if isinstance(layers, GaussianLayers) else layers


def why_not_packed(layers: Layers | GaussianLayers, precision: Precision) -> str | None:
    """The reason why the kernel does not take this network, None where it does."""
    layers = mean_layers(layers)
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
    layers: Layers | GaussianLayers,
    precision: Precision = "bf16",
    out: PackedLayers | None = None,
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
    sizes, networks = layer_sizes(layers), _networks(layers)
    if out is None:
        out = _empty(layers, sizes, precision)
    elif (out.sizes, out.networks, out.precision) != (sizes, networks, precision):
        raise ValueError(
            f"out holds {out.networks} {out.precision} network(s) of sizes {out.sizes}; "
            f"pack {networks} of sizes {sizes} in {precision} into a new one"
        )
    elif (out.head is not None) != isinstance(layers, GaussianLayers):
        raise ValueError("out and the layers differ in whether they have a log-variance")
    if isinstance(layers, GaussianLayers) and out.head is not None:
        weight, bias = layers.head
        given = (_batched(weight, 3), _batched(bias, 2), layers.bounds)
        for target, value in zip(out.head, given, strict=True):
            _put(target, value)
    weights = [_batched(weight, 3) for weight, _ in mean_layers(layers)]
    biases = [_batched(bias, 2) for _, bias in mean_layers(layers)]
    _put(out.first, weights[0])
    _put(out.first_exact, weights[0])
    for i, weight in enumerate(weights[1:-1]):
        _put(out.hidden[:, i], weight)
    if out.fragments is not None:
        out.fragments.copy_(_in_order_of_threads(out.hidden))
    _put(out.last, weights[-1])
    for i, bias in enumerate(biases[:-1]):
        _put(out.bias[:, i], bias)
    _put(out.last_bias, biases[-1])
    return out


def _empty(
    layers: Layers | GaussianLayers, sizes: Sequence[int], precision: Precision
) -> PackedLayers:
    networks, hidden = _networks(layers), len(sizes) - 3
    width, rows = _padded(max(sizes[1:-1])), _padded(sizes[0])
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    like = mean_layers(layers)[0][0].new_zeros
    head = (
        like(networks, rows, width, dtype=dtype),
        like(networks, rows),
        like(3, rows),
    )
    return PackedLayers(
        first=like(networks, width, rows, dtype=dtype),
        first_exact=like(networks, width, rows),
        hidden=like(networks, hidden, width, width, dtype=dtype),
        fragments=(
            like(networks, hidden, width * width, dtype=torch.int16)
            if precision == "bf16"
            else None
        ),
        last=like(networks, rows, width, dtype=dtype),
        bias=like(networks, hidden + 1, width),
        last_bias=like(networks, rows),
        head=head if isinstance(layers, GaussianLayers) else None,
        sizes=tuple(sizes),
        precision=precision,
    )


def _batched(tensor: Tensor, dimensions: int) -> Tensor:
    return tensor if tensor.dim() == dimensions else tensor[None]


def _networks(layers: Layers | GaussianLayers) -> int:
    weight = mean_layers(layers)[0][0]
    return len(weight) if weight.dim() == 3 else 1


def _in_order_of_threads(hidden: Tensor) -> Tensor:
    """[N, L, W W]: per 16 columns and warp what each thread holds of a matrix instruction.

    That is PTX's layout of a left operand from registers (ISA, "wgmma.mma_async", m64nNk16): of the
    warp's 16 rows a thread holds rows r and r + 8, and of the 16 columns 2c, 2c + 1 and 8 more.
    """
    networks, matrices, width, _ = hidden.shape
    warps = _warps(width)
    # row: repeat, warp, half, r; column: 16 columns, half, c, pair
    pieces = hidden.view(torch.int16).view(
        -1, width // (16 * warps), warps, 2, 8, width // 16, 2, 4, 2
    )
    return pieces.permute(0, 5, 1, 2, 4, 7, 6, 3, 8).reshape(networks, matrices, width * width)


def _warps(width: int) -> int:
    return 8 if width >= 128 else max(1, min(4, width // 16))


def _padded(size: int) -> int:
    return max(_SMALLEST, 1 << (size - 1).bit_length())


def _put(target: Tensor, value: Tensor) -> None:
    corner = (slice(None), *(slice(0, size) for size in value.shape[1:]))
    target[corner].copy_(value)
