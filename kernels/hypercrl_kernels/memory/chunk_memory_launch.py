"""How the matrix-memory kernels are launched; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

# pyright: reportCallIssue=false, reportArgumentType=false
import torch
import triton
from torch import Tensor

from hypercrl_kernels.memory.chunk_memory_back_triton import backward_kernel
from hypercrl_kernels.memory.chunk_memory_triton import forward_kernel
from hypercrl_kernels.memory.operators import chunk_slots, padded, product_precision

FEW = 128  # programs, about as many as a large GPU has multiprocessors


@dataclass(frozen=True)
class Launch:
    """Sizes of a kernel's programs.

    Attributes:
        chunk: steps a chunk; 16, 32 or 64.
        warps: of a program.
        stages: loads of chunks under way at once.
        block: values a program of the forward pass holds, a power of two from 16 on; None: all, or
            fewer where sequences are.
        registers: a thread's at most; None: as many as it likes.
    """

    chunk: int
    warps: int
    stages: int = 1
    block: int | None = None
    registers: int | None = None

    def options(self) -> dict[str, int | None]:
        """As a Triton kernel takes them."""
        return {"num_warps": self.warps, "num_stages": self.stages, "maxnreg": self.registers}


@dataclass(frozen=True)
class Problem:
    """Arguments of `chunk_memory` as the kernels take them; `error` as its place in `Error`."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor | None
    beta: Tensor | None
    log_momentum: Tensor | None
    initial: Tensor | None
    cu_seqlens: Tensor | None
    error: int
    scale: float
    chunk: int  # of the error at its start
    launches: tuple[Launch, Launch] | None = None  # forward, backward; None: as `choose_launches`

    def cut(self, save: bool) -> tuple[Launch, Launch]:
        """Launches of the forward and the backward pass."""
        return choose_launches(self, save) if self.launches is None else self.launches

    @property
    def segments(self) -> int:
        return len(self.q) if self.cu_seqlens is None else len(self.cu_seqlens) - 1

    def single(self, chunk: int) -> bool:
        """Each sequence is one chunk that starts from zeros."""
        return self.initial is None and self.cu_seqlens is None and self.q.shape[1] <= chunk

    @property
    def parts(self) -> int:
        """Numbers of the sequences' dtype that an inverse's entry is kept as.

        One of bfloat16 loses what matters where keys are correlated.
        """
        return 1 if self.q.dtype == torch.float32 else 2

    def block(self, launch: Launch) -> int:
        """Values a program of the forward pass holds: all, if that makes programs enough."""
        width, programs = padded(self.v.shape[3]), self.segments * self.q.shape[2]
        if launch.block is not None:
            return launch.block
        while width > 16 and programs < FEW:
            width, programs = width // 2, programs * 2
        return width

    def state_shape(self, count: int) -> tuple[int, ...]:
        """[count, H, (2,) K, V]."""
        two = () if self.log_momentum is None else (2,)
        return (count, self.q.shape[2], *two, self.q.shape[3], self.v.shape[3])

    def outputs(self, save: bool) -> tuple[Tensor, ...]:
        """Unwritten: o, the final state; states and T of each chunk, empty unless wanted."""
        chunk = self.cut(save)[0].chunk
        slots = chunk_slots(self.q, self.cu_seqlens, chunk) if save else 0
        starts = 0 if self.single(chunk) else slots
        q, heads = self.q, self.q.shape[2]
        return (
            torch.empty_like(self.v),
            q.new_empty(self.state_shape(self.segments), dtype=torch.float32),
            q.new_empty(self.state_shape(starts)),
            q.new_empty(slots if self.error >= 2 else 0, heads, self.parts, chunk, chunk),
        )

    def gradients(self) -> tuple[Tensor, ...]:
        """Unwritten: those of q, k, v, log_decay, beta, log_momentum and the initial state.

        Of gates and state in float32, and empty for one that is not there.
        """
        sequences = [torch.empty_like(x) for x in (self.q, self.k, self.v)]
        others = [
            self.q.new_empty(0 if x is None else x.shape, dtype=torch.float32)
            for x in (self.log_decay, self.beta, self.log_momentum, self.initial)
        ]
        return (*sequences, *others)


@dataclass(frozen=True)
class Row:
    """Launches of the forward and the backward pass, and what they are for.

    Attributes:
        widest: keys and values of a head at most.
        half: sequences in half precision; else float32 too.
        momentum: with momentum too, which holds a second state.
        single: sequences of one chunk that start from zeros alone.
        linear: memories without an error alone.
    """

    forward: Launch
    backward: Launch
    widest: int
    half: bool = True
    momentum: bool = False
    single: bool = False
    linear: bool = False

    def fits(self, p: Problem) -> bool:
        width = max(p.q.shape[3], p.v.shape[3])
        return (
            width <= self.widest
            and (self.momentum or p.log_momentum is None)
            and (not self.half or p.q.dtype != torch.float32)
            and (not self.single or p.single(self.forward.chunk))
            and (not self.linear or p.error == 0)
        )


ROWS = (  # the first that fits; the fastest on an H100, see docs/results.md
    Row(Launch(64, 4), Launch(64, 4), widest=64, single=True),
    Row(Launch(64, 4), Launch(64, 4), widest=64, linear=True),
    Row(Launch(64, 4, stages=2), Launch(32, 4, stages=2), widest=64),
    Row(Launch(32, 4, stages=2), Launch(32, 4, stages=2), widest=64, momentum=True),
    Row(Launch(64, 8), Launch(64, 8), widest=128, linear=True),
    Row(Launch(32, 8, stages=2), Launch(32, 8, stages=2), widest=128),
    Row(Launch(32, 8), Launch(32, 8), widest=256, momentum=True),
    Row(Launch(32, 8), Launch(32, 8), widest=64, half=False, momentum=True),
    Row(Launch(16, 4), Launch(16, 4), widest=256, half=False, momentum=True),
)


def choose_launches(p: Problem, save: bool) -> tuple[Launch, Launch]:
    """Of the forward and the backward pass; with `save` both have one chunk size."""
    row = next(row for row in ROWS if row.fits(p))
    forward, backward = row.forward, row.backward
    if save and forward.chunk != backward.chunk:
        forward = replace(forward, chunk=backward.chunk)
    if p.error == 1:  # the chunk is part of what is computed
        forward, backward = (replace(x, chunk=p.chunk) for x in (forward, backward))
    return forward, backward


def _constants(p: Problem, chunk: int) -> dict:
    return {
        "HEADS": p.q.shape[2],
        "KEYS": p.q.shape[3],
        "WIDTH": padded(p.q.shape[3]),
        "VALUES": p.v.shape[3],
        "CHUNK": chunk,
        "DECAY": p.log_decay is not None,
        "STRENGTH": p.beta is not None,
        "MOMENTUM": p.log_momentum is not None,
        "ERROR": p.error,
        "STARTS": p.initial is not None,
        "SINGLE": p.single(chunk),
        "VARLEN": p.cu_seqlens is not None,
        "PARTS": p.parts,
        "DOT": product_precision(p.q),
    }


def launch_forward(p: Problem, save: bool) -> tuple[Tensor, ...]:
    """`Problem.outputs`, written."""
    launch, _ = p.cut(save)
    outputs = o, final, states, inverse = p.outputs(save)
    block = p.block(launch)
    forward_kernel[(triton.cdiv(p.v.shape[3], block), p.segments * p.q.shape[2])](
        p.q, p.k, p.v, p.log_decay, p.beta, p.log_momentum, p.initial, p.cu_seqlens,
        o, final, states, inverse, p.scale, p.q.shape[1],
        **_constants(p, launch.chunk), BLOCK=block, SAVE=save, **launch.options(),
    )  # fmt: skip
    return outputs


def launch_backward(
    p: Problem, d_o: Tensor, d_final: Tensor | None, kept: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """`Problem.gradients`, written; `kept` is what `launch_forward` returned from its third on."""
    _, launch = p.cut(save=True)
    gradients = p.gradients()
    backward_kernel[(p.segments * p.q.shape[2],)](
        p.q, p.k, p.v, p.log_decay, p.beta, p.log_momentum, d_o, d_final, *kept, p.cu_seqlens,
        *gradients, p.scale, p.q.shape[1],
        **_constants(p, launch.chunk), BLOCK=padded(p.v.shape[3]), ENDS=d_final is not None,
        **launch.options(),
    )  # fmt: skip
    return gradients
