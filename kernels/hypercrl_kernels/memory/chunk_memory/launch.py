"""How the matrix-memory kernels are launched; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import KEPT
from hypercrl_kernels.memory.chunk_memory.backward_triton import backward_kernel
from hypercrl_kernels.memory.chunk_memory.forward_triton import forward_kernel
from hypercrl_kernels.memory.operators import Unwritten, blocks, padded, sizes_of, unwritten
from hypercrl_kernels.memory.prepared import PreparedKernel

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


class Problem(NamedTuple):
    """All that a launch for `chunk_memory` depends on; `error` as its place in `Error`."""

    batch: int
    length: int
    heads: int
    keys: int
    values: int
    segments: int
    dtype: torch.dtype  # of the sequences
    device: torch.device
    decay: bool  # whether there are those gates
    strength: bool
    momentum: bool
    starts: bool  # from an initial state, else from zeros
    varlen: bool  # with cu_seqlens
    fixed: bool  # one log decay for a head, at all steps
    error: int
    scale: float  # of the reads
    chunk: int  # of the error at its start
    launches: tuple[Launch, Launch] | None = None  # forward, backward; None: as `choose_launches`

    def cut(self, save: bool) -> tuple[Launch, Launch]:
        """Launches of the forward and the backward pass."""
        return choose_launches(self, save) if self.launches is None else self.launches

    def single(self, chunk: int) -> bool:
        """Each sequence is one chunk that starts from zeros."""
        return not self.starts and not self.varlen and self.length <= chunk

    def slots(self, chunk: int) -> int:
        """Places for chunks: enough for all of them, known without looking at the offsets."""
        if self.varlen:
            return self.length // chunk + self.segments
        return self.batch * blocks(self.length, chunk)

    @property
    def parts(self) -> int:
        """Numbers of the sequences' dtype that an inverse's entry is kept as.

        One of bfloat16 loses what matters where keys are correlated.
        """
        return 1 if self.dtype == torch.float32 else 2

    def block(self, launch: Launch) -> int:
        """Values a program of the forward pass holds: all, if that makes programs enough."""
        width, programs = padded(self.values), self.segments * self.heads
        if launch.block is not None:
            return launch.block
        while width > 16 and programs < FEW:
            width, programs = width // 2, programs * 2
        return width

    def state_shape(self, count: int) -> tuple[int, ...]:
        """[count, H, (2,) K, V]."""
        two = (2,) if self.momentum else ()
        return (count, self.heads, *two, self.keys, self.values)

    def outputs(self, save: bool) -> tuple[Unwritten, ...]:
        """o, the final state; with `save`, where they are needed, states and T of each chunk."""
        chunk = self.cut(save)[0].chunk
        slots = self.slots(chunk)
        inverse = (slots, self.heads, self.parts, chunk, chunk)
        return (
            ((self.batch, self.length, self.heads, self.values), self.dtype),
            (self.state_shape(self.segments), torch.float32),
            (self.state_shape(slots), self.dtype) if save and not self.single(chunk) else None,
            (inverse, self.dtype) if save and self.error >= 2 else None,
        )

    def gradients(self) -> tuple[Unwritten, ...]:
        """Those of q, k, v, log_decay, beta, log_momentum and the initial state.

        Of gates and state in float32.
        """
        lead = (self.batch, self.length, self.heads)
        initial = self.state_shape(self.segments)
        return (
            *(((*lead, width), self.dtype) for width in (self.keys, self.keys, self.values)),
            (lead, torch.float32) if self.decay else None,
            (lead, torch.float32) if self.strength else None,
            (lead, torch.float32) if self.momentum else None,
            (initial, torch.float32) if self.starts else None,
        )


def problem_of(
    tensors: Sequence[Tensor | None],
    error: int,
    scale: float,
    chunk: int,
    launches: tuple[Launch, Launch] | None = None,
) -> Problem:
    """Of q, k, v, log_decay, beta, log_momentum, the initial state and cu_seqlens.

    Without an error log_decay may be [H].
    """
    q, _, v, log_decay, beta, log_momentum, initial, cu_seqlens = tensors
    assert q is not None
    assert v is not None
    batch, length, heads, keys = q.shape
    return Problem(
        batch,
        length,
        heads,
        keys,
        v.shape[3],
        batch if cu_seqlens is None else cu_seqlens.shape[0] - 1,
        q.dtype,
        q.device,
        log_decay is not None,
        beta is not None,
        log_momentum is not None,
        initial is not None,
        cu_seqlens is not None,
        log_decay is not None and log_decay.dim() == 1,
        error,
        scale,
        chunk,
        launches,
    )


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
        width = max(p.keys, p.values)
        return (
            width <= self.widest
            and (self.momentum or not p.momentum)
            and (not self.half or p.dtype != torch.float32)
            and (not self.single or p.single(self.backward.chunk))
            and (not self.linear or p.error == 0)
        )


ROWS = (  # the first that fits; the fastest on an H100, see docs/results/memory_kernels.md
    Row(Launch(64, 4), Launch(64, 4), widest=64, single=True),
    Row(Launch(64, 4), Launch(64, 4), widest=64, linear=True),
    Row(Launch(64, 4, stages=2), Launch(32, 4, stages=2), widest=64),
    Row(Launch(32, 4, stages=2), Launch(64, 8), widest=64, momentum=True, single=True),
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
        forward = backward
    if p.error == 1:  # the chunk is part of what is computed
        forward, backward = (replace(x, chunk=p.chunk) for x in (forward, backward))
    return forward, backward


def _constants(p: Problem, chunk: int) -> dict[str, int | float | str]:
    return {
        **sizes_of(p),
        "scale": p.scale,
        "CHUNK": chunk,
        "DECAY": 2 if p.fixed else p.decay,
        "STRENGTH": p.strength,
        "MOMENTUM": p.momentum,
        "ERROR": p.error,
        "STARTS": p.starts,
        "SINGLE": p.single(chunk),
        "VARLEN": p.varlen,
        "PARTS": p.parts,
    }


@lru_cache(KEPT)
def prepare_forward(p: Problem, save: bool) -> tuple[PreparedKernel, tuple[Unwritten, ...]]:
    """The kernel, and what it writes."""
    launch, _ = p.cut(save)
    block = p.block(launch)
    grid = (blocks(p.values, block), p.segments * p.heads)
    constants = {**_constants(p, launch.chunk), "BLOCK": block, "SAVE": save}
    return PreparedKernel(forward_kernel, grid, constants, launch.options()), p.outputs(save)


@lru_cache(KEPT)
def prepare_backward(p: Problem, ends: bool) -> tuple[PreparedKernel, tuple[Unwritten, ...]]:
    """The kernel and what it writes; `ends` if the final state has a gradient."""
    _, launch = p.cut(save=True)
    grid = (p.segments * p.heads,)
    constants = {**_constants(p, launch.chunk), "BLOCK": padded(p.values), "ENDS": ends}
    return PreparedKernel(backward_kernel, grid, constants, launch.options()), p.gradients()


def launch_forward(p: Problem, tensors: Sequence[Tensor | None], save: bool) -> list[Tensor | None]:
    """`Problem.outputs`, written; the tensors as `problem_of` takes them."""
    kernel, outputs = prepare_forward(p, save)
    written = unwritten(outputs, p.device)
    kernel((*tensors, *written))
    return written


def launch_backward(
    p: Problem,
    tensors: Sequence[Tensor | None],
    d_o: Tensor,
    d_final: Tensor | None,
    kept: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """`Problem.gradients`, written; `kept` is what `launch_forward` returned from its third on."""
    kernel, gradients = prepare_backward(p, d_final is not None)
    *sequences, _, cu_seqlens = tensors
    written = unwritten(gradients, p.device)
    kernel((*sequences, d_o, d_final, *kept, cu_seqlens, *written))
    return written
