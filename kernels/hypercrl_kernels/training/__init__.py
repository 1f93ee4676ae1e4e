"""Operations that read every parameter of a training step: Adam, and a hypernetwork's layers."""

from hypercrl_kernels.training.adam import AdamMoments, AdamSettings, adam_ahead, adam_step
from hypercrl_kernels.training.narrow_mlp import narrow_mlp
from hypercrl_kernels.training.regularised_head import MOST_TASKS, HeadGradients, regularised_head

__all__ = [
    "MOST_TASKS",
    "AdamMoments",
    "AdamSettings",
    "HeadGradients",
    "adam_ahead",
    "adam_step",
    "narrow_mlp",
    "regularised_head",
]
