"""Sparse state expansion: a larger state, of which each step writes and reads a part.

Pan et al., "Scaling linear attention with sparse state expansion", 2025.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl.base.settings import number
from hypercrl.memory.base import State
from hypercrl.memory.blocks import HeadOutput, LowRank, heads, linear
from hypercrl.memory.gla import GLAConfig
from hypercrl.memory.routing import balance_loss, combine, largest, route
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import chunk_gla, gla_step


@dataclass
class SSEConfig(GLAConfig):
    """Partitions of the state, and how steps are routed to them and to their rows."""

    name: str = "sse"
    partitions: int = number(
        4, least=2, allocated=True, help="parts of the state beside the one always on"
    )
    selected: int = number(1, least=1, help="parts that a step writes and reads")
    rows: int = number(4, least=0, help="rows of a part that a step writes; 0: no softmax, all")
    balance: float = number(0.01, least=0, help="weight of the loss that evens the routing")


class SSELayer(MemoryLayer):
    """S_i ← Λ S_i + e_i k vᵀ and o = Σ_i e_i S_iᵀ q over the largest e_i = softmax(W_e x)_i.

    Pan et al. 2025. Partitions that are not selected neither write nor decay; one more is always
    on, with e = 1. Λ is GLA's diagonal decay, apart for the sparse partitions and for the fixed
    one. Parameters are those of one GLA: q and k of the sparse partitions differ from the others'
    by a low-rank map.

    With `rows` R, unless it is 0, a step also chooses the rows that it writes (eq. 7):
    k = softmax(W_k x) over the R largest entries of each head, 0 in the others, whose rows neither
    are written nor decay. For R = K, the width of a head, k is the whole softmax and every row
    decays, as the authors' program has it; q and v go through SiLU in both, as there.
    """

    def __init__(self, config: SSEConfig, generator: torch.Generator) -> None:
        super().__init__()
        if config.selected > config.partitions:
            raise ValueError(
                f"memory.selected must be at most memory.partitions={config.partitions}, "
                f"not {config.selected}"
            )
        width = config.width
        self.heads, self.head_width = config.heads, width // config.heads
        if config.rows and not 2 <= config.rows <= self.head_width:
            raise ValueError(
                "memory.rows must be 0, or from 2 to the width of a head, "
                f"memory.width / memory.heads = {self.head_width}, not {config.rows}"
            )
        self.every, self.rows = config.partitions + 1, config.rows
        self.selected, self.balance = config.selected, config.balance
        self.router = linear(width, config.partitions, generator, bias=False)
        self.project = linear(width, 3 * width, generator, bias=False)
        self.difference = LowRank(width, 2 * width, config.rank, generator)
        self.decay = LowRank(width, width, config.rank, generator)
        self.sparse_decay = LowRank(width, width, config.rank, generator)
        self.out = HeadOutput(width, self.heads, generator, gated=True)

    def initial(self, batch: int) -> State:
        shape = (batch, self.every * self.heads, self.head_width, self.head_width)
        return {"memory": self.router.weight.new_zeros(shape)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        shares, chosen = route(self.router(x), self.selected)
        loss = balance_loss(shares.flatten(0, 1), chosen.flatten(0, 1))  # over the whole batch
        self.routing_loss = self.balance * loss
        q, k, v, log_decay = self._split(x, shares, chosen)
        o, memory = chunk_gla(q, k, v, log_decay=log_decay, initial_state=state["memory"])
        return self.out(combine(o, shares * chosen), x), {"memory": memory}

    def step(self, x: Tensor, state: State) -> Tensor:
        shares, chosen = route(self.router(x), self.selected)
        q, k, v, log_decay = self._split(x, shares, chosen)
        o = gla_step(q, k, v, log_decay=log_decay, state=state["memory"])
        return self.out.step(combine(o, shares * chosen), x)

    def _split(
        self, x: Tensor, shares: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """q, k, v and log Λ of every partition's heads, [..., (N + 1) H, K], the fixed one last."""
        q, k, v = self.project(x).chunk(3, -1)
        sparse_q, sparse_k = (torch.cat([q, k], -1) + self.difference(x)).chunk(2, -1)
        k, log_decay = self._written(k, self.decay(x))
        sparse_k, sparse_decay = self._written(sparse_k, self.sparse_decay(x))
        if self.rows:
            q, sparse_q, v = F.silu(q), F.silu(sparse_q), F.silu(v)
        shares, chosen = (shares * chosen)[..., None], chosen[..., None]
        parts = (
            self._beside(sparse_q, q),
            self._beside(shares * sparse_k[..., None, :], k),
            self._beside(v, v),
            self._beside(chosen * sparse_decay[..., None, :], log_decay),
        )
        q, k, v, log_decay = (heads(x, self.heads).flatten(-3, -2) for x in parts)
        return q, k, v, log_decay

    def _written(self, k: Tensor, decay: Tensor) -> tuple[Tensor, Tensor]:
        """k and log Λ [..., D] of their projections; 0 for rows that are not chosen."""
        log_decay = F.logsigmoid(decay) / 16
        if not self.rows:
            return k, log_decay
        scores = heads(k, self.heads)
        rows = largest(scores, self.rows)
        k = scores.masked_fill(rows == 0, -torch.inf).softmax(-1)
        return k.flatten(-2), rows.flatten(-2) * log_decay

    def _beside(self, sparse: Tensor, fixed: Tensor) -> Tensor:
        """[..., N, D] or, the same for all, [..., D], and [..., D] → [..., N + 1, D]."""
        if sparse.dim() == fixed.dim():
            sparse = sparse[..., None, :].expand(*sparse.shape[:-1], self.every - 1, -1)
        return torch.cat([sparse, fixed[..., None, :]], -2)


class SSE(MemoryStack):
    """Layers of sparse state expansion over GLA."""

    layer = SSELayer
