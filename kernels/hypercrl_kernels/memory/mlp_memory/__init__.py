"""Titans' memory: a two-layer network a head."""

from hypercrl_kernels.memory.mlp_memory.api import chunk_mlp_memory
from hypercrl_kernels.memory.mlp_memory.naive import MLPState

__all__ = ["MLPState", "chunk_mlp_memory"]
