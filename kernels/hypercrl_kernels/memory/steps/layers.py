"""One step of what lies around a memory in its layer: affine maps and short convolutions.

A controller's step has few numbers, so that its time is the number of kernels that follow one
another: each of these is one. Gradients are not recorded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hypercrl_kernels.memory.arguments import check_shape, step_as_kernel


@torch.no_grad()
def linear_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    norm: Tensor | None = None,
    gate: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """residual + W (RMSNorm(x) ∘ silu(gate)) + b, each part but W where it is given.

    Args:
        x: [B, D].
        weight: [N, D].
        bias: [N].
        norm: [G], weights of an RMSNorm of each G numbers of x; its ε is the dtype's.
        gate: [B, D].
        residual: [B, N].

    Returns:
        [B, N].

    Raises:
        ValueError: shapes that do not fit together.
    """
    name = "linear_step"
    sizes = _sizes(name, x, weight)
    optional = (("bias", bias, "N"), ("gate", gate, "BD"), ("residual", residual, "BN"))
    for own, value, letters in optional:
        if value is not None:
            check_shape(name, own, value, letters, **sizes)
    if norm is not None and (norm.dim() != 1 or x.shape[1] % len(norm)):
        raise ValueError(
            f"{name} needs norm [G] with G a divisor of D={x.shape[1]}; got {tuple(norm.shape)}"
        )
    if step_as_kernel(name, weight):
        from hypercrl_kernels.memory.steps.launch import launch_linear_step

        return launch_linear_step(x, weight, bias, norm, gate, residual)
    if norm is not None:
        parts = x.unflatten(-1, (-1, len(norm)))
        x = functional.rms_norm(parts, norm.shape, norm).flatten(-2)
    if gate is not None:
        x = x * functional.silu(gate)
    y = functional.linear(x, weight, bias)
    return y if residual is None else residual + y


@torch.no_grad()
def convolution_step(x: Tensor, weight: Tensor, *, before: Tensor) -> Tensor:
    """SiLU of a causal convolution over each channel's last steps.

    Args:
        x: [B, D].
        weight: [N, D], that of the present step last.
        before: [B, N − 1, D], the inputs before x, which move on in place.

    Returns:
        [B, D].

    Raises:
        ValueError: shapes that do not fit together.
    """
    name = "convolution_step"
    sizes = _sizes(name, x, weight)
    check_shape(name, "before", before, "BMD", M=sizes["N"] - 1, **sizes)
    if step_as_kernel(name, before):
        from hypercrl_kernels.memory.steps.launch import launch_convolution_step

        return launch_convolution_step(x, weight, before)
    seen = torch.cat([before, x[:, None]], 1)
    before.copy_(seen[:, 1:])
    return functional.silu((weight * seen).sum(1))


def _sizes(name: str, x: Tensor, weight: Tensor) -> dict[str, int]:
    """B, D and N of x [B, D] and weight [N, D]."""
    if x.dim() != 2 or weight.dim() != 2:
        raise ValueError(
            f"{name} needs x [B, D] and weight [N, D]; got {tuple(x.shape)} and "
            f"{tuple(weight.shape)}"
        )
    sizes = {"B": x.shape[0], "D": x.shape[1], "N": weight.shape[0]}
    check_shape(name, "weight", weight, "ND", **sizes)
    return sizes
