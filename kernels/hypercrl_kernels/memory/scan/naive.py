"""The recurrence that defines the gated elementwise scan, one step at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import each_segment


def scan_recurrence(
    x: Tensor, log_decay: Tensor, state: Tensor, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`scan` one step at a time."""
    if cu_seqlens is not None:
        return each_segment(scan_recurrence, (x, log_decay), state, cu_seqlens)
    outputs = []
    for t in range(x.shape[1]):
        state = log_decay[:, t].to(state.dtype).exp() * state + x[:, t]
        outputs.append(state)
    o = torch.stack(outputs, 1) if outputs else torch.zeros_like(x)
    return o.to(x.dtype), state
