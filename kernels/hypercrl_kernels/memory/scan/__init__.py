"""The gated elementwise scan."""

from hypercrl_kernels.memory.scan.api import scan

__all__ = ["scan"]
