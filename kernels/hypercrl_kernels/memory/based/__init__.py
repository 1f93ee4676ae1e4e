"""BASED: linear attention by a Taylor polynomial."""

from hypercrl_kernels.memory.based.api import based

__all__ = ["based"]
