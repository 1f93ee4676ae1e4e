"""Mixture of memories: a router sends each step to a few of several memories.

Du et al., "MoM: linear sequence modeling with mixture-of-memories", 2025.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import HeadOutput, ShortConvolution, heads, linear, unit
from hypercrl.memory.gated_deltanet import DecayGate
from hypercrl.memory.routing import balance_loss, beside_shared, combine, renormalised, route
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import chunk_memory, memory_step


@dataclass
class MoMConfig(MemoryConfig):
    """Memories, and how steps are routed to them.

    `balance` is the authors' `aux_loss_scale`; the loss is a mean over the layers.
    """

    name: str = "mom"
    memories: int = number(4, least=2, help="memories beside the shared one")
    selected: int = number(2, least=1, help="memories that a step writes and reads")
    balance: float = number(0.01, least=0, help="weight of the loss that evens the routing")


class MoMLayer(MemoryLayer):
    """o = Σ_i w_i M_iᵀ q + M_sᵀ q over the routed memories and a shared one.

    Du et al. 2025, section 3. w is the softmax of a router, cut to its largest and made to sum to 1
    again. Each memory is a Gated DeltaNet with k, v, β and decay of its own; q is common. Those not
    routed to neither write nor decay. Memories lie beside the heads: one call for all, of a fixed
    size.
    """

    def __init__(self, config: MoMConfig, generator: torch.Generator) -> None:
        super().__init__()
        if config.selected > config.memories:
            raise ValueError(
                f"memory.selected must be at most memory.memories={config.memories}, "
                f"not {config.selected}"
            )
        width, every = config.width, config.memories + 1
        self.heads, self.head_width = config.heads, width // config.heads
        self.every, self.selected, self.balance = every, config.selected, config.balance
        self.convolution = ShortConvolution(width, generator)
        self.router = linear(width, config.memories, generator, bias=False)
        self.query = linear(width, width, generator, bias=False)
        self.write = linear(width, 2 * every * width, generator, bias=False)
        self.strength = linear(width, every * self.heads, generator)
        self.decay = DecayGate(width, every * self.heads, generator)
        self.out = HeadOutput(width, self.heads, generator, gated=True)

    def initial(self, batch: int) -> State:
        shape = (batch, self.every * self.heads, self.head_width, self.head_width)
        memory = self.router.weight.new_zeros(shape)
        return {"memory": memory, "convolution": self.convolution.initial(batch)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        shares, chosen = route(self.router(x), self.selected)
        weights = renormalised(shares, chosen)
        self.routing_loss = self.balance * balance_loss(weights, chosen)
        active = beside_shared(chosen)
        mixed, before = self.convolution(x, state["convolution"])
        q, k, v = self._split(mixed)
        o, memory = chunk_memory(
            self._everywhere(unit(q)),
            unit(k),
            v,
            log_decay=self._only(active, self.decay(x)),
            beta=self._only(active, self.strength(x).sigmoid()),
            error="after_decay",
            initial_state=state["memory"],
        )
        o = self.out(combine(o, weights), x)
        return o, {"memory": memory, "convolution": before}

    def step(self, x: Tensor, state: State) -> Tensor:
        shares, chosen = route(self.router(x), self.selected)
        active = beside_shared(chosen)
        q, k, v = self._split(self.convolution.step(x, state["convolution"]))
        o = memory_step(
            self._everywhere(q),
            k,
            v,
            log_decay=self._only(active, self.decay(x)),
            beta=self._only(active, self.strength(x).sigmoid()),
            error="after_decay",
            unit_keys=True,
            state=state["memory"],
        )
        return self.out.step(combine(o, renormalised(shares, chosen)), x)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q [..., H, K], and k and v of every memory's heads, [..., (N + 1) H, K]."""
        k, v = (heads(half, self.every * self.heads) for half in self.write(x).chunk(2, -1))
        return heads(self.query(x), self.heads), k, v

    def _everywhere(self, q: Tensor) -> Tensor:
        """[..., H, K], the same for every memory → [..., (N + 1) H, K]."""
        every = q[..., None, :, :].expand(*q.shape[:-2], self.every, *q.shape[-2:])
        return every.flatten(-3, -2)

    def _only(self, active: Tensor, gate: Tensor) -> Tensor:
        """Gates [..., (N + 1) H], 0 for memories that are not active [..., N + 1]."""
        return (heads(gate, self.every) * active[..., None]).flatten(-2)


class MoM(MemoryStack):
    """Mixtures of memories."""

    layer = MoMLayer
