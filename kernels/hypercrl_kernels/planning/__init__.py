"""Operations of a sampling planner: rollouts of a model, sampling, and the update from elites."""

from hypercrl_kernels.planning.elites import elite_statistics, refit_and_sample
from hypercrl_kernels.planning.elites_reference import Elites
from hypercrl_kernels.planning.packed_layers import (
    PackedLayers,
    Precision,
    layer_sizes,
    mean_layers,
    pack_layers,
)
from hypercrl_kernels.planning.returns import TracedReturns, trace_returns
from hypercrl_kernels.planning.rollout import (
    follow,
    multiplies_bfloat16,
    prepare_layers,
    rollout,
)
from hypercrl_kernels.planning.rollout_reference import GaussianLayers, Layers, LinearPolicies
from hypercrl_kernels.planning.sampling import sample_actions

__all__ = [
    "Elites",
    "GaussianLayers",
    "Layers",
    "LinearPolicies",
    "PackedLayers",
    "Precision",
    "TracedReturns",
    "elite_statistics",
    "follow",
    "layer_sizes",
    "mean_layers",
    "multiplies_bfloat16",
    "pack_layers",
    "prepare_layers",
    "refit_and_sample",
    "rollout",
    "sample_actions",
    "trace_returns",
]
