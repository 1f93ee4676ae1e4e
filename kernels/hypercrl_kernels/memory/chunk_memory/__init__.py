"""A memory of one matrix a head, and what it is known as by name."""

from hypercrl_kernels.memory.chunk_memory.api import chunk_memory

__all__ = ["chunk_memory"]
