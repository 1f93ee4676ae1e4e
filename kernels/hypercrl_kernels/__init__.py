"""Tensor operations of hypercrl: Triton kernels with torch references; knows nothing of robots."""

from hypercrl_kernels.planning import (
    Elites,
    Layers,
    PackedLayers,
    Precision,
    elite_statistics,
    layer_sizes,
    pack_layers,
    prepare_layers,
    rollout,
    sample_actions,
)

__all__ = [
    "Elites",
    "Layers",
    "PackedLayers",
    "Precision",
    "elite_statistics",
    "layer_sizes",
    "pack_layers",
    "prepare_layers",
    "rollout",
    "sample_actions",
]
