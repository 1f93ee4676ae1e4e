"""What a continual learner is judged by: pure functions of arrays, NumPy alone.

A result that failed is NaN. It makes every number that depends on it NaN as well: a mean over the
results that happened to survive would flatter a method that crashes.
"""

from hypercrl.metrics.activations import (
    dormant_share,
    effective_rank,
)
from hypercrl.metrics.learning_curves import (
    auc_forward_transfer,
    continual_world_forward_transfer,
)
from hypercrl.metrics.matrix import (
    Array,
    Mask,
    as_matrix,
    average_performance,
    backward_transfer,
    can_succeed,
    chaudhry_forgetting,
    continual_world_forgetting,
    error_growth,
    forgetting,
    just_trained,
    model_forgetting,
    normalise,
    retention,
    zero_shot_forward_transfer,
)
from hypercrl.metrics.over_seeds import (
    interquartile_mean,
    interquartile_mean_interval,
    mean_interval,
    mean_over_strata_interval,
    probability_of_improvement,
    probability_of_improvement_interval,
)

__all__ = [
    "Array",
    "Mask",
    "as_matrix",
    "auc_forward_transfer",
    "average_performance",
    "backward_transfer",
    "can_succeed",
    "chaudhry_forgetting",
    "continual_world_forgetting",
    "continual_world_forward_transfer",
    "dormant_share",
    "effective_rank",
    "error_growth",
    "forgetting",
    "interquartile_mean",
    "interquartile_mean_interval",
    "just_trained",
    "mean_interval",
    "mean_over_strata_interval",
    "model_forgetting",
    "normalise",
    "probability_of_improvement",
    "probability_of_improvement_interval",
    "retention",
    "zero_shot_forward_transfer",
]
