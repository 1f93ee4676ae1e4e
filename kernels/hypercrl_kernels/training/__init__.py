"""Operations of a training step: Adam, a hypernetwork's layers, the loss of what it writes."""

from hypercrl_kernels.training.adam import adam_ahead, adam_step
from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.narrow_mlp import narrow_mlp
from hypercrl_kernels.training.regularised_head import MOST_TASKS, regularised_head
from hypercrl_kernels.training.regularised_head_reference import HeadGradients
from hypercrl_kernels.training.scaled_error import scaled_error

__all__ = [
    "MOST_TASKS",
    "AdamMoments",
    "AdamSettings",
    "HeadGradients",
    "adam_ahead",
    "adam_step",
    "narrow_mlp",
    "regularised_head",
    "scaled_error",
]
