"""Tensor operations of hypercrl with torch references; depends on torch alone."""

from hypercrl_kernels.rollout import Layers, rollout

__all__ = ["Layers", "rollout"]
