"""Operations of a sampling planner: rollouts of a model, and the update from the elites."""

from hypercrl_kernels.planning.packed_layers import PackedLayers, Precision, pack_layers
from hypercrl_kernels.planning.rollout import rollout
from hypercrl_kernels.planning.rollout_reference import Layers

__all__ = ["Layers", "PackedLayers", "Precision", "pack_layers", "rollout"]
