"""The memory of Titans: a function that is trained, while it is used, to map keys to values.

Behrouz, Zhong, Mirrokni, "Titans: learning to memorize at test time", 2025, section 3.1.
"""

from abc import abstractmethod
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.memory.base import State
from hypercrl.memory.blocks import (
    HeadOutput,
    ShortConvolution,
    heads,
    linear,
    normal,
    split_unit,
    unit,
)
from hypercrl.memory.stack import MemoryLayer
from hypercrl_kernels import (
    MLPState,
    chunk_memory,
    chunk_mlp_memory,
    memory_step,
    mlp_memory_step,
)

MOST_MOMENTUM = 0.9
"""Upper bound of η: nearer to 1 the memory swings for hundreds of steps, and grows by it."""

LOWEST = -20.0
"""Least log of what is kept at a step."""


Sequences = tuple[Tensor, Tensor, Tensor]
"""q, k and v."""


class Gates(NamedTuple):
    """log(1 − α), log η and θ, [..., H]."""

    log_decay: Tensor
    log_momentum: Tensor
    beta: Tensor


class NeuralMemory(MemoryLayer):
    """S_t = η_t S_{t−1} − θ_t ∇ℓ(M; k_t, v_t), M_t = (1 − α_t) M_{t−1} + S_t, ℓ = ½|M(k) − v|².

    Behrouz et al. 2025, eqs. 11 to 14. q, k, v: a projection, a causal convolution, SiLU; q and k
    of unit length. 1 − α, η, θ are sigmoids, one a head, so that θ|k|² < 1; α starts near 0.02, η
    and θ halfway to their bounds. The memory starts from learned weights, and has read the
    `persistent` learned tokens.

    Args:
        width: of the layer; count: heads.
        persistent: learned tokens that are written before the first step.
    """

    most_rate = 1.0
    """Upper bound of θ."""

    def __init__(
        self, width: int, count: int, generator: torch.Generator, persistent: int = 0
    ) -> None:
        super().__init__()
        self.heads, self.head_width = count, width // count
        self.project = linear(width, 3 * width, generator, bias=False)
        self.convolution = ShortConvolution(3 * width, generator)
        self.gates = linear(width, 3 * count, generator)
        with torch.no_grad():
            self.gates.bias[:count] = 4.0  # of 1 − α
        self.out = HeadOutput(width, count, generator, gated=False)
        self.persistent = None
        if persistent:
            self.persistent = normal(persistent, width, generator=generator)

    def initial(self, batch: int) -> State:
        state = {"before": self.convolution.initial(batch), **self._fresh(batch)}
        if self.persistent is not None:
            _, state = self.forward(self.persistent.expand(batch, -1, -1), state)
        return state

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        mixed, before = self.convolution(self.project(x), state["before"])
        o, after = self._sequence(self._split(mixed), self._gates(x), state)
        return self.out(o, x), {"before": before, **after}

    def step(self, x: Tensor, state: State) -> Tensor:
        mixed = self.convolution.step(self.project(x), state["before"])
        o = self._one(heads(mixed, 3 * self.heads), self._gates(x), state)
        return self.out.step(o, x)

    def _split(self, mixed: Tensor) -> Sequences:
        return split_unit(mixed, self.heads)

    def _gates(self, x: Tensor) -> Gates:
        kept_carried, rate = self.gates(x).split([2 * self.heads, self.heads], -1)
        kept, carried = F.logsigmoid(kept_carried).clamp_min(LOWEST).chunk(2, -1)
        return Gates(kept, carried + log(MOST_MOMENTUM), self.most_rate * rate.sigmoid())

    @abstractmethod
    def weights(self, state: State) -> State:
        """M alone."""

    @abstractmethod
    def recall(self, q: Tensor, weights: State) -> Tensor:
        """M(q) [B, T, H, K] of M that is not written."""

    @abstractmethod
    def _fresh(self, batch: int) -> State:
        """M as learned and S = 0."""

    @abstractmethod
    def _sequence(self, qkv: Sequences, gates: Gates, state: State) -> tuple[Tensor, State]:
        """Write and read each step of a sequence."""

    @abstractmethod
    def _one(self, qkv: Tensor, gates: Gates, state: State) -> Tensor:
        """Write one step, in place, and read; q, k and v [B, 3 H, K] of any length."""


class MatrixMemory(NeuralMemory):
    """M(x) = Mᵀx; each gradient is taken at the memory of the step before, exactly."""

    def __init__(
        self, width: int, count: int, generator: torch.Generator, persistent: int = 0
    ) -> None:
        super().__init__(width, count, generator, persistent)
        self.matrix = nn.Parameter(torch.zeros(count, self.head_width, self.head_width))

    def weights(self, state: State) -> State:
        return {"matrix": state["memory"][:, :, 0]}

    def recall(self, q: Tensor, weights: State) -> Tensor:
        return torch.einsum("bthk,bhkv->bthv", q, weights["matrix"])

    def _fresh(self, batch: int) -> State:
        memory = torch.stack([self.matrix, torch.zeros_like(self.matrix)], 1)
        return {"memory": memory.repeat(batch, 1, 1, 1, 1)}

    def _sequence(self, qkv: Sequences, gates: Gates, state: State) -> tuple[Tensor, State]:
        o, memory = chunk_memory(
            *qkv,
            **gates._asdict(),
            error="before_decay",
            scale=1.0,
            initial_state=state["memory"],
        )
        return o, {"memory": memory}

    def _one(self, qkv: Tensor, gates: Gates, state: State) -> Tensor:
        return memory_step(
            *qkv.chunk(3, 1),
            **gates._asdict(),
            error="before_decay",
            unit_keys=True,
            scale=1.0,
            state=state["memory"],
        )


class MLPMemory(NeuralMemory):
    """M(x) = gelu(x W₁) W₂, with twice a head's width in between.

    Its curvature grows with its weights, so that gates which a matrix bears let it diverge within a
    few hundred steps. Values have unit length too, and θ < 0.1.

    Args:
        chunk: steps of a sequence whose gradients are taken at the same weights. 1 is what a single
            step computes; 16, 32 or 64 train with kernels on a GPU, and differ from steps by that.
    """

    most_rate = 0.1

    def __init__(
        self,
        width: int,
        count: int,
        generator: torch.Generator,
        persistent: int = 0,
        chunk: int = 1,
    ) -> None:
        super().__init__(width, count, generator, persistent)
        hidden, self.chunk = 2 * self.head_width, chunk
        self.w1 = normal(count, hidden, self.head_width, generator=generator)
        self.w2 = normal(count, self.head_width, hidden, generator=generator)

    def _split(self, mixed: Tensor) -> Sequences:
        q, k, v = super()._split(mixed)
        return q, k, unit(v)

    def weights(self, state: State) -> State:
        return {"w1": state["w1"], "w2": state["w2"]}

    def recall(self, q: Tensor, weights: State) -> Tensor:
        hidden = F.gelu(torch.einsum("bthk,bhkf->bthf", q, weights["w1"]))
        return torch.einsum("bthf,bhfv->bthv", hidden, weights["w2"])

    def _fresh(self, batch: int) -> State:
        state = MLPState.fresh(self.w1.mT, self.w2.mT, batch)
        full = zip(MLPState._fields, state.in_full(), strict=True)
        return {name: x.contiguous() for name, x in full}

    def _sequence(self, qkv: Sequences, gates: Gates, state: State) -> tuple[Tensor, State]:
        o, after = chunk_mlp_memory(
            *qkv, **gates._asdict(), initial_state=_mlp_state(state), chunk=self.chunk
        )
        return o, after._asdict()

    def _one(self, qkv: Tensor, gates: Gates, state: State) -> Tensor:
        parts = unit(qkv).chunk(3, 1)
        return mlp_memory_step(*parts, **gates._asdict(), state=_mlp_state(state))


def _mlp_state(state: State) -> MLPState:
    return MLPState(*(state[name] for name in MLPState._fields))
