"""Gated linear attention."""

from hypercrl_kernels.memory.chunk_gla.api import chunk_gla

__all__ = ["chunk_gla"]
