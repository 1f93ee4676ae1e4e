"""The gated elementwise scan in its doubling form, in torch operations: the CPU's path."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import Padding


def scan_doubling(
    x: Tensor, log_decay: Tensor, state: Tensor, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`scan_recurrence` in log₂ T passes; the same arguments and results."""
    if cu_seqlens is not None:
        padding = Padding(cu_seqlens)
        parts = [padding.split(each) for each in (x, log_decay)]
        o, final = scan_doubling(*parts, state=state)
        return padding.join(o), final
    # The state enters as a step of its own in front.
    total = torch.cat([state[:, None], x.to(state.dtype)], 1)
    decay = log_decay.to(state.dtype).exp()
    reach = 1
    # After each pass, total_t holds the last `reach` steps, and decay is the product over them.
    while reach < total.shape[1]:
        shifted = decay * total[:, : total.shape[1] - reach]
        total = torch.cat([total[:, :reach], total[:, reach:] + shifted], 1)
        decay = decay[:, reach:] * decay[:, : max(decay.shape[1] - reach, 0)]
        reach *= 2
    return total[:, 1:].to(x.dtype), total[:, -1]
