"""Memories of a fixed size over sequences, and one step of each."""

from hypercrl_kernels.memory.attention import hopfield_retrieval, sliding_window_attention
from hypercrl_kernels.memory.based.api import based
from hypercrl_kernels.memory.chunk_gla.api import chunk_gla
from hypercrl_kernels.memory.chunk_memory.api import chunk_memory
from hypercrl_kernels.memory.mlp_memory.api import chunk_mlp_memory
from hypercrl_kernels.memory.mlp_memory.naive import MLPState
from hypercrl_kernels.memory.rotation import rotate
from hypercrl_kernels.memory.scan.api import scan
from hypercrl_kernels.memory.steps.api import (
    based_step,
    gla_step,
    memory_step,
    mlp_memory_step,
    scan_step,
)
from hypercrl_kernels.memory.steps.attention import attention_step
from hypercrl_kernels.memory.steps.layers import convolution_step, linear_step

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
