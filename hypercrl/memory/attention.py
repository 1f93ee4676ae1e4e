"""Softmax attention over a bounded window, with what was seen kept as keys and values."""

import torch
from torch import Tensor

from hypercrl.memory.base import State
from hypercrl.memory.blocks import Rotation, heads, linear, normal
from hypercrl.memory.stack import MemoryLayer
from hypercrl_kernels import attention_step, hopfield_retrieval


class Window:
    """The last W keys and values of each robot, in a ring: the step t lies at t mod W.

    Args:
        size: W.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def initial(self, batch: int, count: int, width: int, like: Tensor) -> State:
        """Nothing seen; keys and values [B, W, H, K]."""
        shape = (batch, self.size, count, width)
        seen = torch.zeros(batch, dtype=torch.long, device=like.device)
        return {"keys": like.new_zeros(shape), "values": like.new_zeros(shape), "seen": seen}

    def extend(
        self, state: State, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, State]:
        """Put a sequence [B, T, H, K] behind what is there.

        Returns:
            Keys and values [B, W + T, H, K] in order of time, which of them each step sees,
            [B, T, W + T], and the state after the last.
        """
        length, seen, size = keys.shape[1], state["seen"], self.size
        slots = torch.arange(size, device=keys.device)
        in_order = (seen[:, None] + slots) % size
        every_key = torch.cat([_at(state["keys"], in_order), keys], 1)
        every_value = torch.cat([_at(state["values"], in_order), values], 1)

        place = torch.arange(size + length, device=keys.device)
        lag = place[size:, None] - place
        exists = place >= size - seen[:, None]
        mask = ((lag >= 0) & (lag < size)) & exists[:, None, :]

        seen = seen + length
        slot = length + (slots - seen[:, None]) % size
        after = {"keys": _at(every_key, slot), "values": _at(every_value, slot), "seen": seen}
        return every_key, every_value, mask, after


def _at(x: Tensor, places: Tensor) -> Tensor:
    """x [B, S, H, K] at places [B, N] of its second axis."""
    return x.gather(1, places[..., None, None].expand(-1, -1, *x.shape[2:]))


class WindowAttention(MemoryLayer):
    """Multi-head softmax attention over the last `window` steps (Vaswani et al. 2017, eq. 1).

    q and k turn with the position (RoPE). `persistent` learned keys and values are seen by every
    step besides (Behrouz et al. 2025, section 3.3; Sukhbaatar et al. 2019).

    Args:
        width: of the layer; count: heads; window: steps seen, the present one among them.
    """

    def __init__(
        self,
        width: int,
        count: int,
        window: int,
        generator: torch.Generator,
        persistent: int = 0,
    ) -> None:
        super().__init__()
        self.heads, self.head_width = count, width // count
        self.window = Window(window)
        self.rotation = Rotation(self.head_width)
        self.project = linear(width, 3 * width, generator, bias=False)
        self.out = linear(width, width, generator, bias=False)
        if persistent:
            shape = (2, persistent, count, self.head_width)
            self.persistent = normal(*shape, generator=generator)
        else:
            self.persistent = None

    def initial(self, batch: int) -> State:
        return self.window.initial(batch, self.heads, self.head_width, self.out.weight)

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        steps = torch.arange(x.shape[1], device=x.device)
        position = state["seen"][:, None] + steps
        q, k, v = self.rotation.split(self.project(x), self.heads, position)
        keys, values, mask, after = self.window.extend(state, k, v)
        o = hopfield_retrieval(q, keys, values, mask=mask, persistent=self.persistent)
        return self.out(o.flatten(-2)), after

    def step(self, x: Tensor, state: State) -> Tensor:
        q, k, v = (heads(part, self.heads) for part in self.project(x).chunk(3, -1))
        o = attention_step(
            q,
            k[:, None],
            v[:, None],
            keys=state["keys"],
            values=state["values"],
            seen=state["seen"],
            rates=self.rotation.rates,
            persistent=self.persistent,
        )
        return self.out(o.flatten(-2))
