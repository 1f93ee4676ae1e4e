"""Parts that memory layers are made of."""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.initial_weights import xavier_uniform
from hypercrl_kernels import convolution_step, linear_step, rotate


def linear(
    inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True
) -> nn.Linear:
    """An affine map, Xavier-uniform from the generator; its bias starts at 0."""
    layer = nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        layer.weight.copy_(xavier_uniform((outputs, inputs), generator))
        if bias:
            nn.init.zeros_(layer.bias)
    return layer


def normal(*shape: int, generator: torch.Generator) -> nn.Parameter:
    """A parameter ~ N(0, 1/D), D its last axis."""
    return nn.Parameter(torch.randn(*shape, generator=generator) / sqrt(shape[-1]))


class ShortConvolution(nn.Module):
    """SiLU of a causal convolution over each channel's last steps.

    It starts near the identity: where a token is a whole transition, a blend of several hides them
    all, and recall stays at chance for thousands of steps.

    Args:
        width: channels D.
        taps: steps that are seen, the present one among them.
    """

    def __init__(self, width: int, generator: torch.Generator, taps: int = 4) -> None:
        super().__init__()
        self.taps = taps
        weight = 0.1 * (torch.rand(taps, width, generator=generator) - 0.5)
        weight[-1] = 1.0
        self.weight = nn.Parameter(weight)

    def initial(self, batch: int) -> Tensor:
        """[B, taps − 1, D] zeros: the inputs before the first."""
        return self.weight.new_zeros(batch, self.taps - 1, self.weight.shape[1])

    def forward(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, T, D] and the inputs before it → [B, T, D] and the last inputs."""
        seen = torch.cat([before, x], 1)
        length = x.shape[1]
        mixed = self.weight[-1] * x
        for tap in range(self.taps - 1):
            mixed = mixed + self.weight[tap] * seen[:, tap : tap + length]
        return F.silu(mixed), seen[:, length:]

    def step(self, x: Tensor, before: Tensor) -> Tensor:
        """x [B, D] → [B, D]; the inputs before it move on in place."""
        return convolution_step(x, self.weight, before=before)


class SwiGLU(nn.Module):
    """W₃(silu(W₁x) ∘ W₂x) with twice the width in between; Shazeer 2020."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.enter = linear(width, 4 * width, generator, bias=False)
        self.leave = linear(2 * width, width, generator, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.enter(x).chunk(2, -1)
        return self.leave(F.silu(gate) * value)

    def step(self, x: Tensor, norm: nn.RMSNorm) -> Tensor:
        """x [B, D] → x + what `forward` makes of norm x."""
        gate, value = linear_step(x, self.enter.weight, norm=norm.weight).chunk(2, -1)
        return linear_step(value, self.leave.weight, gate=gate, residual=x)


def heads(x: Tensor, count: int) -> Tensor:
    """[..., D] → [..., H, D/H]."""
    return x.unflatten(-1, (count, -1))


def unit(x: Tensor) -> Tensor:
    """x at length 1 along its last axis."""
    return F.normalize(x, dim=-1, eps=1e-6)


def split_unit(x: Tensor, count: int, writes: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v side by side, [..., 3 H D] → each [..., H, D], q and k of length 1.

    With n writes, [..., (1 + 2 n) H D] → q [..., H, D], and k and v [..., n H, D].
    """
    every = heads(x, (1 + 2 * writes) * count)
    keys = (1 + writes) * count
    q, k = unit(every[..., :keys, :]).split([count, writes * count], -2)
    return q, k, every[..., keys:, :]


class Rotation(nn.Module):
    """Turns pairs of channels by angles that grow with the position, so that q·k sees the lag.

    Su et al. 2021 (RoPE), eq. 34.

    Args:
        width: D, even.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rates: Tensor
        rates = 10_000.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("rates", rates, persistent=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """x [..., H, D] at positions [...], steps since the beginning."""
        return rotate(x, position, self.rates)

    def split(self, x: Tensor, count: int, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v side by side, [..., 3 H D] → each [..., H, D], q and k turned."""
        every = heads(x, 3 * count)
        q, k = self(every[..., : 2 * count, :], position).chunk(2, -2)
        return q, k, every[..., 2 * count :, :]


class HeadOutput(nn.Module):
    """W_o (RMSNorm of each head [∘ silu(W_g x)]): how linear memories hand on what they read."""

    def __init__(self, width: int, count: int, generator: torch.Generator, *, gated: bool) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width // count)
        self.gate = linear(width, width, generator, bias=False) if gated else None
        self.out = linear(width, width, generator, bias=False)

    def forward(self, o: Tensor, x: Tensor) -> Tensor:
        """o [..., H, V] and the layer's input x [..., D] → [..., D]."""
        o = self.norm(o).flatten(-2)
        return self.out(o if self.gate is None else o * F.silu(self.gate(x)))

    def step(self, o: Tensor, x: Tensor) -> Tensor:
        """`forward` of o [B, H, V] and x [B, D]."""
        gate = None if self.gate is None else self.gate(x)
        return linear_step(o.flatten(-2), self.out.weight, norm=self.norm.weight, gate=gate)


class LowRank(nn.Module):
    """W₂ W₁ x + b with few rows between."""

    def __init__(self, inputs: int, outputs: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = linear(inputs, rank, generator, bias=False)
        self.second = linear(rank, outputs, generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))
