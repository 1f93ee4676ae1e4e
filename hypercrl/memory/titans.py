"""Titans: a memory trained at test time beside short attention, wired in three ways.

Behrouz, Zhong, Mirrokni, "Titans: learning to memorize at test time", 2025, section 4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypercrl.base.settings import choice, number
from hypercrl.memory.attention import WindowAttention
from hypercrl.memory.base import MemoryConfig, State
from hypercrl.memory.blocks import Rotation, heads, linear, normal, unit
from hypercrl.memory.neural_memory import MatrixMemory, MLPMemory, NeuralMemory
from hypercrl.memory.stack import MemoryLayer, MemoryStack, join, part
from hypercrl_kernels import attention_step, hopfield_retrieval, linear_step


@dataclass
class TitansConfig(MemoryConfig):
    """Settings of all three."""

    inner: str = choice("linear", "linear", "mlp", help="form of the memory: a matrix or an MLP")
    persistent: int = number(
        4, least=1, allocated=True, help="learned tokens before the first transition"
    )
    window: int = number(
        16,
        least=1,
        allocated=True,
        help="transitions that attention sees; of titans_mac a segment",
    )
    chunk: int = number(
        1,
        least=1,
        only_with=("inner=mlp",),
        help="steps whose gradients are taken at the same weights; of inner=mlp",
    )


@dataclass
class TitansMACConfig(TitansConfig):
    """Memory as a context."""

    name: str = "titans_mac"


@dataclass
class TitansMAGConfig(TitansConfig):
    """Memory as a gate."""

    name: str = "titans_mag"


@dataclass
class TitansMALConfig(TitansConfig):
    """Memory as a layer."""

    name: str = "titans_mal"


def neural_memory(
    config: TitansConfig, generator: torch.Generator, persistent: int
) -> NeuralMemory:
    """The memory of the config's form."""
    sizes = (config.width, config.heads)
    if config.inner == "linear":
        return MatrixMemory(*sizes, generator, persistent)
    return MLPMemory(*sizes, generator, persistent, config.chunk)


class MemoryAsLayer(MemoryLayer):
    """o = SWA(M([p ‖ x])) (Behrouz et al. 2025, eqs. 29 to 31)."""

    def __init__(self, config: TitansConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.memory = neural_memory(config, generator, config.persistent)
        sizes = (config.width, config.heads, config.window)
        self.attention = WindowAttention(*sizes, generator, config.persistent)

    def initial(self, batch: int) -> State:
        return join([self.memory.initial(batch), self.attention.initial(batch)])

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        read, memory = self.memory(x, part(state, 0))
        o, window = self.attention(read, part(state, 1))
        return o, join([memory, window])

    def step(self, x: Tensor, state: State) -> Tensor:
        return self.attention.step(self.memory.step(x, part(state, 0)), part(state, 1))


class MemoryAsGate(MemoryAsLayer):
    """o = norm(y) ∘ norm(M([p ‖ x])), y = SWA([p ‖ x]) (Behrouz et al. 2025, eqs. 26 to 28)."""

    def __init__(self, config: TitansConfig, generator: torch.Generator) -> None:
        super().__init__(config, generator)
        self.attention_norm = nn.RMSNorm(config.width)
        self.memory_norm = nn.RMSNorm(config.width)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        read, memory = self.memory(x, part(state, 0))
        y, window = self.attention(x, part(state, 1))
        return self.attention_norm(y) * self.memory_norm(read), join([memory, window])

    def step(self, x: Tensor, state: State) -> Tensor:
        read = self.memory.step(x, part(state, 0))
        y = self.attention.step(x, part(state, 1))
        return self.attention_norm(y) * self.memory_norm(read)


class MemoryAsContext(MemoryLayer):
    """In segments: h = M(q), y = x + attention over [p ‖ h ‖ x], M learns y, o = y ∘ σ(M(y)).

    Behrouz et al. 2025, eqs. 21 to 25, with the residual of section 4.4; ∘ is a gate whose form the
    paper leaves open. h comes from the memory at the start of the segment. As contexts are wanted
    at every step, attention is causal within the segment, to h too, and M is written and read step
    by step.

    The state holds, beside the memory, its weights at the segment's start, and the keys and values
    of h and x of the segment so far.
    """

    def __init__(self, config: TitansConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.width
        self.heads, self.head_width, self.segment = (
            config.heads,
            width // config.heads,
            config.window,
        )
        self.rotation = Rotation(self.head_width)
        self.memory = neural_memory(config, generator, persistent=0)
        self.question = linear(width, width, generator, bias=False)
        self.query = linear(width, width, generator, bias=False)
        self.stored = linear(width, 2 * width, generator, bias=False)
        shape = (2, config.persistent, self.heads, self.head_width)
        self.persistent = normal(*shape, generator=generator)
        self.out = linear(width, width, generator, bias=False)

    def initial(self, batch: int) -> State:
        memory = self.memory.initial(batch)
        start = {name: x.clone() for name, x in self.memory.weights(memory).items()}
        shape = (batch, self.segment, 2, self.heads, self.head_width)
        keys, values = (self.out.weight.new_zeros(shape) for _ in range(2))
        seen = torch.zeros(batch, dtype=torch.long, device=keys.device)
        return join([memory, start, {"keys": keys, "values": values, "seen": seen}])

    def begin(self, x: Tensor) -> tuple[Tensor, State]:
        return self._segments(x, self.initial(len(x)), 0)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Robots that are at the same place of their segments go together: this waits for it."""
        place = part(state, 2)["seen"] % self.segment
        groups = [(place == p).nonzero()[:, 0] for p in place.unique()]
        outputs, states = [], []
        for rows in groups:
            own = {name: value[rows] for name, value in state.items()}
            o, own = self._segments(x[rows], own, int(place[rows[0]]))
            outputs.append(o)
            states.append(own)
        back = torch.cat(groups).argsort()
        after = {name: torch.cat([own[name] for own in states])[back] for name in state}
        return torch.cat(outputs)[back], after

    def _segments(self, x: Tensor, state: State, place: int) -> tuple[Tensor, State]:
        """x [B, T, D] of robots that are all at that place of a segment."""
        outputs = []
        while x.shape[1]:
            end = self.segment - place
            o, state = self._within_segment(x[:, :end], state, place)
            outputs.append(o)
            x, place = x[:, end:], 0
        return torch.cat(outputs, 1), state

    def _within_segment(self, x: Tensor, state: State, place: int) -> tuple[Tensor, State]:
        memory, start, window = (part(state, i) for i in range(3))
        if place == 0:
            start = self.memory.weights(memory)
        end = place + x.shape[1]
        position = torch.arange(place, end, device=x.device).expand(len(x), -1)
        q, keys, values = self._attention_inputs(x, start)
        q = self.rotation(q, position)
        keys = self.rotation(keys, position[..., None].expand(-1, -1, 2))
        keys = torch.cat([window["keys"][:, :place], keys, window["keys"][:, end:]], 1)
        values = torch.cat([window["values"][:, :place], values, window["values"][:, end:]], 1)
        shown = torch.arange(self.segment, device=x.device) <= position[..., None]
        o = hopfield_retrieval(
            q,
            keys.flatten(1, 2),
            values.flatten(1, 2),
            mask=shown[..., None].expand(*shown.shape, 2).flatten(-2),
            persistent=self.persistent,
        )
        y = x + self.out(o.flatten(-2))
        read, memory = self.memory(y, memory)
        window = {"keys": keys, "values": values, "seen": window["seen"] + x.shape[1]}
        return y * read.sigmoid(), join([memory, start, window])

    def step(self, x: Tensor, state: State) -> Tensor:
        memory, start, window = (part(state, i) for i in range(3))
        begins = window["seen"] % self.segment == 0
        for name, weights in self.memory.weights(memory).items():
            here = begins.view(-1, *[1] * (weights.dim() - 1))
            torch.where(here, weights, start[name], out=start[name])
        q, key, value = (part[:, 0] for part in self._attention_inputs(x[:, None], start))
        o = attention_step(
            q,
            key,
            value,
            keys=window["keys"].view(len(x), -1, *key.shape[2:]),
            values=window["values"].view(len(x), -1, *value.shape[2:]),
            seen=window["seen"],
            rates=self.rotation.rates,
            persistent=self.persistent,
            segments=True,
        )
        y = linear_step(o.flatten(-2), self.out.weight, residual=x)
        return y * self.memory.step(y, memory).sigmoid()

    def _attention_inputs(self, x: Tensor, start: State) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] → q [B, T, H, K], and keys and values [B, T, 2, H, K] of h and of x."""
        question = unit(heads(self.question(x), self.heads))
        recalled = self.memory.recall(question, start).flatten(-2)
        both = torch.stack([recalled, x], 2)
        k, v = (heads(half, self.heads) for half in self.stored(both).chunk(2, -1))
        return heads(self.query(x), self.heads), k, v


class TitansMAC(MemoryStack):
    """Titans with its memory as a context."""

    layer = MemoryAsContext


class TitansMAG(MemoryStack):
    """Titans with its memory as a gate."""

    layer = MemoryAsGate


class TitansMAL(MemoryStack):
    """Titans with its memory as a layer."""

    layer = MemoryAsLayer
