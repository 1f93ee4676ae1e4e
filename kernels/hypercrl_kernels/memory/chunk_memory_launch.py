"""How the matrix-memory kernels are cut into programs; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# pyright: reportCallIssue=false
import torch
import triton
from torch import Tensor

from hypercrl_kernels.memory.chunk_memory_triton import (
    finish_kernel,
    prepare_kernel,
    walk_back_kernel,
    walk_kernel,
)
from hypercrl_kernels.memory.operators import chunk_slots, padded, product_precision


@dataclass(frozen=True)
class Launch:
    """Sizes of the kernels; all powers of two, chunks and blocks from 16 on.

    Attributes:
        chunk: steps a chunk.
        block: values that a program of the walks holds.
        finish_block: values that `finish_kernel` takes at a time.
        prepare_warps, walk_warps, finish_warps: warps a program.
        stages: loads under way at once in the walks.
    """

    chunk: int = 16
    block: int = 64
    finish_block: int = 64
    prepare_warps: int = 1
    walk_warps: int = 1
    finish_warps: int = 4
    stages: int = 2


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
    launch: Launch | None = None

    @property
    def segments(self) -> int:
        return len(self.q) if self.cu_seqlens is None else len(self.cu_seqlens) - 1

    def state_shape(self, count: int) -> tuple[int, ...]:
        """[count, H, (2,) K, V]."""
        two = () if self.log_momentum is None else (2,)
        return (count, self.q.shape[2], *two, self.q.shape[3], self.v.shape[3])

    def cut(self) -> Launch:
        if self.launch is not None:
            return self.launch
        return choose_launch(self)

    def outputs(self, save: bool) -> tuple[Tensor, ...]:
        """Unwritten: o, the final state, states (empty unless `save`), A, T, and row vectors."""
        launch, q = self.cut(), self.q
        slots, chunk = chunk_slots(q, self.cu_seqlens, launch.chunk), launch.chunk
        heads, count = q.shape[2], 4 if self.log_momentum is None else 8
        return (
            torch.empty_like(self.v),
            q.new_empty(self.state_shape(self.segments), dtype=torch.float32),
            q.new_empty(self.state_shape(slots) if save else 0),
            q.new_empty(slots, heads, chunk, chunk),
            q.new_empty((slots, heads, chunk, chunk) if self.error >= 2 else 0),
            q.new_empty(slots, heads, count, chunk, dtype=torch.float32),
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


def choose_launch(problem: Problem) -> Launch:
    """Short chunks and a warp a program: the walk is a chain of small products."""
    chunk = problem.chunk if problem.error == 1 else 16
    small = chunk <= 16
    block = min(padded(problem.v.shape[3]), max(16, 4096 // padded(problem.q.shape[3])))
    return Launch(
        chunk=chunk,
        block=block,
        finish_block=block,
        prepare_warps=1 if small else 4,
        walk_warps=1 if small else 4,
        finish_warps=2 if small else 4,
    )


def _constants(p: Problem, launch: Launch) -> dict:
    return {
        "HEADS": p.q.shape[2],
        "KEYS": p.q.shape[3],
        "WIDTH": padded(p.q.shape[3]),
        "CHUNK": launch.chunk,
        "ROWS": 4 if p.log_momentum is None else 8,
        "MOMENTUM": p.log_momentum is not None,
        "ERROR": p.error,
        "VARLEN": p.cu_seqlens is not None,
        "DOT": product_precision(p.q),
    }


def _gates(p: Problem) -> dict:
    return {
        "DECAY": p.log_decay is not None,
        "STRENGTH": p.beta is not None,
        "SEARCH": p.segments.bit_length() if p.cu_seqlens is not None else 0,
    }


def launch_forward(p: Problem, save: bool) -> tuple[Tensor, ...]:
    """`Problem.outputs`, written."""
    launch, values, heads = p.cut(), p.v.shape[3], p.q.shape[2]
    outputs = o, final, states, reading, inverse, rows = p.outputs(save)
    constants = _constants(p, launch)
    prepare_kernel[(chunk_slots(p.q, p.cu_seqlens, launch.chunk), heads)](
        p.q, p.k, p.log_decay, p.beta, p.log_momentum, p.cu_seqlens, reading, inverse, rows,
        p.q.shape[1], p.segments, **constants, **_gates(p), LEVELS=launch.chunk.bit_length() - 1,
        num_warps=launch.prepare_warps,
    )  # fmt: skip
    walk_kernel[(triton.cdiv(values, launch.block), p.segments * heads)](
        p.q, p.k, p.v, reading, inverse, rows, p.initial, p.cu_seqlens, o, final, states,
        p.scale, p.q.shape[1], **constants, VALUES=values, BLOCK=launch.block,
        STARTS=p.initial is not None, SAVE=save,
        num_warps=launch.walk_warps, num_stages=launch.stages,
    )  # fmt: skip
    return outputs


def launch_backward(
    p: Problem, d_o: Tensor, d_final: Tensor | None, kept: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """`Problem.gradients`, written; `kept` is what `launch_forward` returned from its third on."""
    launch, values, heads = p.cut(), p.v.shape[3], p.q.shape[2]
    states, reading, inverse, rows = kept
    gradients = d_q, d_k, d_v, d_decay, d_beta, d_momentum, d_initial = p.gradients()
    constants = _constants(p, launch)
    d_right, d_states = torch.empty_like(p.v), torch.empty_like(states)
    walk_back_kernel[(triton.cdiv(values, launch.block), p.segments * heads)](
        p.q, p.k, d_o, reading, inverse, rows, d_final, p.cu_seqlens, d_right, d_initial,
        d_states, p.scale, p.q.shape[1], **constants, VALUES=values, BLOCK=launch.block,
        STARTS=p.initial is not None, ENDS=d_final is not None,
        num_warps=launch.walk_warps, num_stages=launch.stages,
    )  # fmt: skip
    finish_kernel[(chunk_slots(p.q, p.cu_seqlens, launch.chunk), heads)](
        p.q, p.k, p.v, p.log_decay, p.log_momentum, d_o, d_right, inverse, rows, states,
        d_states, p.cu_seqlens, d_q, d_k, d_v, d_decay, d_beta, d_momentum, p.scale,
        p.q.shape[1], p.segments, **constants, **_gates(p), VALUES=values,
        BLOCK=launch.finish_block, num_warps=launch.finish_warps, num_stages=1,
    )  # fmt: skip
    return gradients
