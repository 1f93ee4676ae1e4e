"""Mixture of memories: a router sends each step to a few of several memories.

Du et al., "MoM: linear sequence modeling with mixture-of-memories", 2025.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl.base.settings import choice, number, setting
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import HeadOutput, heads, linear, unit
from hypercrl.memory.gated_deltanet import DecayGate
from hypercrl.memory.mom_inputs import ConvolvedInputs, RoutedInputs
from hypercrl.memory.routing import balance_loss, beside_shared, combine, renormalised, route
from hypercrl.memory.stack import MemoryLayer, MemoryStack
from hypercrl_kernels import chunk_memory, memory_step


@dataclass
class MoMConfig(MemoryConfig):
    """Memories, and how steps are routed to them.

    `balance` is the authors' `aux_loss_scale`; the loss is a mean over the layers.
    """

    name: str = "mom"
    memories: int = number(4, least=2, allocated=True, help="memories beside the shared one")
    selected: int = number(2, least=1, help="memories that a step writes and reads")
    convolution: str = choice(
        "input", "input", "routed", help="over all steps, or over those of each memory"
    )
    shared_decay: bool = setting(False, help="one A and b of the decay for all memories of a head")
    balance: float = number(0.01, least=0, help="weight of the loss that evens the routing")


class SharedDecayGate(DecayGate):
    """Decays of N memories, of which each has its own W and all have one A and b a head."""

    def __init__(self, width: int, count: int, every: int, generator: torch.Generator) -> None:
        super().__init__(width, count, generator)
        self.every = every
        self.project = linear(width, every * count, generator, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., N H], ≤ 0."""
        projected = heads(self.project(x), self.every) + self.bias
        return (-self.log_rate.exp() * F.softplus(projected)).flatten(-2)


class MoMLayer(MemoryLayer):
    """o = Σ_i w_i M_iᵀ q + M_sᵀ q over the routed memories and a shared one.

    Du et al. 2025, section 3. w is the softmax of a router, cut to its largest and made to sum to 1
    again. Each memory is a Gated DeltaNet with k, v, β and decay of its own; q is common. Those not
    routed to neither write nor decay. Memories lie beside the heads: one call for all, of a fixed
    size.

    By default a short convolution of the layer's input, in the order of time, comes before q, k, v,
    and every memory has an A and b of its decay. `convolution="routed"` and `shared_decay` are as
    the authors' program has them: convolutions of q, k and v over the steps of each memory alone,
    and one A and b for all memories of a head.
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
        inputs = RoutedInputs if config.convolution == "routed" else ConvolvedInputs
        self.inputs = inputs(width, self.heads, every, generator)
        self.router = linear(width, config.memories, generator, bias=False)
        self.strength = linear(width, every * self.heads, generator)
        if config.shared_decay:
            self.decay = SharedDecayGate(width, self.heads, every, generator)
        else:
            self.decay = DecayGate(width, every * self.heads, generator)
        self.out = HeadOutput(width, self.heads, generator, gated=True)

    def initial(self, batch: int) -> State:
        shape = (batch, self.every * self.heads, self.head_width, self.head_width)
        memory = self.router.weight.new_zeros(shape)
        return {"memory": memory, "convolution": self.inputs.initial(batch)}

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        shares, chosen = route(self.router(x), self.selected)
        weights = renormalised(shares, chosen)
        self.routing_loss = self.balance * balance_loss(weights, chosen)
        active = beside_shared(chosen)
        (q, k, v), before = self.inputs(x, active, state["convolution"])
        o, memory = chunk_memory(
            unit(q),
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
        q, k, v = self.inputs.step(x, active, state["convolution"])
        o = memory_step(
            q,
            k,
            v,
            log_decay=self._only(active, self.decay(x)),
            beta=self._only(active, self.strength(x).sigmoid()),
            error="after_decay",
            unit_keys=True,
            state=state["memory"],
        )
        return self.out.step(combine(o, renormalised(shares, chosen)), x)

    def _only(self, active: Tensor, gate: Tensor) -> Tensor:
        """Gates [..., (N + 1) H], 0 for memories that are not active [..., N + 1]."""
        return (heads(gate, self.every) * active[..., None]).flatten(-2)


class MoM(MemoryStack):
    """Mixtures of memories."""

    layer = MoMLayer
