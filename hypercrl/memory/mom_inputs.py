"""What a mixture of memories is told: q, k and v of every memory, behind a short convolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.memory.blocks import ShortConvolution, heads, linear

QKV = tuple[Tensor, Tensor, Tensor]


class ConvolvedInputs(nn.Module):
    """q, k, v of the M memories from a short convolution of the layer's input, over all steps.

    Args:
        width: D, of the layer's input.
        count: H, heads of each memory, K = D / H wide.
        memories: M, each with k and v of its own; q is common.
    """

    def __init__(self, width: int, count: int, memories: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads, self.memories = count, memories
        self.convolution = self._make_convolution(width, generator)
        self.query = linear(width, width, generator, bias=False)
        self.write = linear(width, 2 * memories * width, generator, bias=False)

    def initial(self, batch: int) -> Tensor:
        """What the convolution has seen before the first step, a robot a row."""
        return self.convolution.initial(batch)

    def forward(self, x: Tensor, active: Tensor, before: Tensor) -> tuple[QKV, Tensor]:  # noqa: ARG002
        """The inputs of a sequence.

        Args:
            x: [B, T, D].
            active: [B, T, M], 1 where a step goes to a memory, else 0.
            before: as `initial`.

        Returns:
            q, k and v, each [B, T, M H, K], and what the convolution has seen last. Where a step
            does not go to a memory they may be anything finite.
        """
        mixed, before = self.convolution(x, before)
        return self._projected(mixed), before

    def step(self, x: Tensor, active: Tensor, before: Tensor) -> QKV:  # noqa: ARG002
        """As `forward`, of one step, without T; `before` moves on in place."""
        return self._projected(self.convolution.step(x, before))

    def _make_convolution(self, width: int, generator: torch.Generator) -> ShortConvolution:
        return ShortConvolution(width, generator)

    def _projected(self, x: Tensor) -> QKV:
        """[..., D] → q, k, v [..., M H, K]."""
        k, v = (heads(half, self.memories * self.heads) for half in self.write(x).chunk(2, -1))
        q = heads(self.query(x), self.heads)[..., None, :, :]
        return q.expand(*q.shape[:-3], self.memories, *q.shape[-2:]).flatten(-3, -2), k, v


class RoutedInputs(ConvolvedInputs):
    """q, k, v, each behind a short convolution over the steps that went to the same memory.

    As the authors' program has it; weights are common to all memories. Steps are packed, those of a
    memory first and in their order, convolved, and put back: sizes do not depend on the routing,
    and nothing waits for the device.
    """

    def initial(self, batch: int) -> Tensor:
        """[B, M, taps − 1, 3 D] zeros."""
        before = self.convolution.initial(batch)[:, None]
        return before.expand(-1, self.memories, -1, -1).contiguous()

    def forward(self, x: Tensor, active: Tensor, before: Tensor) -> tuple[QKV, Tensor]:
        own = self._beside(self._projected(x)).transpose(1, 2)
        place, counts = packing(active.transpose(1, 2))
        place = place[..., None].expand_as(own)
        packed = torch.zeros_like(own).scatter(2, place, own)
        mixed, _ = self.convolution(packed.flatten(0, 1), before.flatten(0, 1))
        mixed = mixed.unflatten(0, own.shape[:2]).gather(2, place).transpose(1, 2)
        latest = counts + torch.arange(before.shape[2], device=x.device)
        seen = torch.cat([before, packed], 2)
        return self._apart(mixed), seen.gather(2, latest[..., None].expand_as(before))

    def step(self, x: Tensor, active: Tensor, before: Tensor) -> QKV:
        own = self._beside(self._projected(x))
        seen = torch.cat([before, own[:, :, None]], 2)
        before.copy_(torch.where(active[..., None, None] > 0, seen[:, :, 1:], before))
        return self._apart(F.silu((self.convolution.weight * seen).sum(2)))

    def _make_convolution(self, width: int, generator: torch.Generator) -> ShortConvolution:
        return ShortConvolution(3 * width, generator)

    def _beside(self, qkv: QKV) -> Tensor:
        """q, k, v [..., M H, K] → [..., M, 3 D]."""
        return torch.cat([heads(x.flatten(-2), self.memories) for x in qkv], -1)

    def _apart(self, mixed: Tensor) -> QKV:
        """[..., M, 3 D] → q, k, v [..., M H, K]."""
        q, k, v = (heads(x, self.heads).flatten(-3, -2) for x in mixed.chunk(3, -1))
        return q, k, v


def packing(active: Tensor) -> tuple[Tensor, Tensor]:
    """Where each step goes so that the active ones come first, both kinds in their order.

    Args:
        active: [..., T], 1 or 0.

    Returns:
        Places [..., T], each of 0 … T − 1 once, and how many are active, [..., 1].
    """
    active = active.long()
    counts = active.sum(-1, keepdim=True)
    behind = counts + (1 - active).cumsum(-1)
    return torch.where(active > 0, active.cumsum(-1), behind) - 1, counts
