"""A memory that is one number per channel: the gated scan of HGRN."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import (
    check_log_gates,
    check_offsets,
    check_shape,
    runs_as_kernel,
    work_dtype,
)
from hypercrl_kernels.memory.scan.chunked import scan_doubling


def scan(
    x: Tensor,
    *,
    log_decay: Tensor,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_decay_t) · h_{t−1} + x_t, elementwise; HGRN (Qin et al. 2023, eq. 1).

    Args:
        x: [B, T, H, D].
        log_decay: [B, T, H, D], ≤ 0; −∞ forgets all that was before.
        initial_state: [N, H, D]. None: zeros.
        cu_seqlens: [N + 1] offsets of N segments that lie one after another in a batch of one.

    Returns:
        h [B, T, H, D] in the dtype of x, and the final state, float32 (float64 for float64).

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero.

    Example:
        >>> x = torch.randn(2, 100, 4, 16)
        >>> h, state = scan(x, log_decay=-torch.rand_like(x))
        >>> tuple(h.shape), tuple(state.shape)
        ((2, 100, 4, 16), (2, 4, 16))
    """
    if x.dim() != 4 or log_decay.shape != x.shape:
        raise ValueError(
            f"scan needs x and log_decay [B, T, H, D] of one shape; got {tuple(x.shape)} and "
            f"{tuple(log_decay.shape)}"
        )
    check_log_gates("scan", log_decay=log_decay)
    batch, length, heads, width = x.shape
    count = check_offsets("scan", cu_seqlens, batch, length)
    if initial_state is not None:
        check_shape("scan", "initial_state", initial_state, "NHD", N=count, H=heads, D=width)
        initial_state = initial_state.to(work_dtype(x))
    if runs_as_kernel("scan", x, products=False):
        from hypercrl_kernels.memory.scan.op import scan_kernels

        return scan_kernels(x, log_decay, initial_state, cu_seqlens)
    if initial_state is None:
        initial_state = torch.zeros(count, heads, width, dtype=work_dtype(x), device=x.device)
    return scan_doubling(x, log_decay, initial_state, cu_seqlens)
