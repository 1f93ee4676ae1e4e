"""Memories of a fixed size over sequences, and one step of each.

A folder for each operation, with the same files in each: `api` (the public function), `naive` (the
recurrence that defines it), `chunked` (the same a chunk at a time in torch operations, which a CPU
runs), `op` (autograd of the kernels), `launch` (how they are launched) and the kernels themselves,
`triton` or `forward_triton` and `backward_triton`. What several share lies beside the folders.
"""

from hypercrl_kernels.memory.attention import hopfield_retrieval, sliding_window_attention
from hypercrl_kernels.memory.based import based
from hypercrl_kernels.memory.chunk_gla import chunk_gla
from hypercrl_kernels.memory.chunk_memory import chunk_memory
from hypercrl_kernels.memory.mlp_memory import MLPState, chunk_mlp_memory
from hypercrl_kernels.memory.rotation import rotate
from hypercrl_kernels.memory.scan import scan
from hypercrl_kernels.memory.steps import (
    attention_step,
    based_step,
    convolution_step,
    gla_step,
    linear_step,
    memory_step,
    mlp_memory_step,
    scan_step,
)

__all__ = [
    "MLPState",
    "attention_step",
    "based",
    "based_step",
    "chunk_gla",
    "chunk_memory",
    "chunk_mlp_memory",
    "convolution_step",
    "gla_step",
    "hopfield_retrieval",
    "linear_step",
    "memory_step",
    "mlp_memory_step",
    "rotate",
    "scan",
    "scan_step",
    "sliding_window_attention",
]
