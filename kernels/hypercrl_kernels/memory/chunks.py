"""What the chunk forms in torch operations share: cutting, and the weights inside a chunk."""

from __future__ import annotations

import torch
from torch import Tensor


class Cut:
    """A sequence cut into N chunks of C steps, chunks outermost: each is a batch of matrices."""

    def __init__(self, length: int, chunk: int, dtype: torch.dtype) -> None:
        self.length, self.chunk, self.dtype = length, chunk, dtype
        self.chunks = -(-length // chunk)
        self.padding = self.chunks * chunk - length

    def rows(self, x: Tensor) -> Tensor:
        """[B, T, H, D] → [N, B H, C, D], zeros beyond the end."""
        x = torch.nn.functional.pad(x.to(self.dtype), (0, 0, 0, 0, 0, self.padding))
        x = x.unflatten(1, (self.chunks, self.chunk)).permute(1, 0, 3, 2, 4)
        return x.flatten(1, 2).contiguous()

    def join(self, x: Tensor, batch: int, heads: int) -> Tensor:
        """[N, B H, C, D] → [B, T, H, D]."""
        x = x.unflatten(1, (batch, heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)
        return x[:, : self.length]


def decays(log_gate: Tensor) -> Tensor:
    """exp of the sum of the gates from j + 1 to t, [..., C, C], 0 for j > t.

    Each sum runs over its own terms: a difference of cumulative sums would cancel.
    """
    size = log_gate.shape[-1]
    lower = torch.ones(size, size, dtype=torch.bool, device=log_gate.device).tril()
    terms = log_gate[..., None].expand(*log_gate.shape, size).masked_fill(~lower.tril(-1), 0)
    return terms.cumsum(-2).masked_fill(~lower, -torch.inf).exp()


class Weights:
    """How strongly step t sees what entered at step j ≤ t, or what was there before the chunk.

    With M the memory, S its velocity: M_t = start_t M₀ + start_velocity_t S₀ + Σ_j read_tj k_j u_jᵀ
    and S_t = velocity_start_t S₀ + Σ_j velocity_tj k_j u_jᵀ.

    Args:
        log_decay, log_momentum: [N, B H, C], None where there is none.
        valid: [N, B H, C], zero for steps beyond the end, which leave everything as it is.
        like: a tensor [..., C, K] of the chunk size, dtype and device.
    """

    def __init__(
        self,
        log_decay: Tensor | None,
        log_momentum: Tensor | None,
        valid: Tensor | None,
        like: Tensor,
    ) -> None:
        size = like.shape[-2]
        self.log_decay = log_decay
        self.start: Tensor | None = None
        if log_decay is None:
            self.read = torch.ones(size, size, dtype=like.dtype, device=like.device).tril()
        else:
            self.read = decays(log_decay)
            self.start = log_decay.cumsum(-1).exp()
        self.has_velocity = log_momentum is not None
        if log_momentum is not None:
            self.velocity = decays(log_momentum)
            self.velocity_start = log_momentum.cumsum(-1).exp()
            moved, moved_start = self.velocity, self.velocity_start
            if valid is not None:
                moved, moved_start = valid[..., None] * moved, valid * moved_start
            kept = self.read
            self.read = torch.matmul(kept, moved)
            self.start_velocity = torch.matmul(kept, moved_start[..., None])[..., 0]

    def prediction(self, after_decay: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The same for the memory that predicts at step t: weights of j < t, of M₀ and of S₀."""
        before, start = _shift(self.read, 0), self.start
        start_velocity = _shift(self.start_velocity[..., None], 0) if self.has_velocity else None
        if start is not None:
            start = _shift(start[..., None], 1)[..., 0]
        if start_velocity is not None:
            start_velocity = start_velocity[..., 0]
        if after_decay and self.log_decay is not None:
            decay = self.log_decay.exp()
            before = decay[..., None] * before
            start = self.start
            start_velocity = None if start_velocity is None else decay * start_velocity
        return before, start, start_velocity


def _shift(x: Tensor, first: float) -> Tensor:
    """Rows moved down by one."""
    return torch.cat([torch.full_like(x[..., :1, :], first), x[..., :-1, :]], -2)
