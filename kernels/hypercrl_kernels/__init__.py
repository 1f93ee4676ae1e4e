"""Tensor operations of hypercrl: Triton kernels with torch references; knows nothing of robots."""

from hypercrl_kernels.planning import Layers, PackedLayers, Precision, pack_layers, rollout

__all__ = ["Layers", "PackedLayers", "Precision", "pack_layers", "rollout"]
