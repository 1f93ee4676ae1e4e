"""Operations of a training step: Adam, and what a hypernetwork's gradients by hand are made of."""

from hypercrl_kernels.training.adam import adam_ahead, adam_step
from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.clipped_adam import clipped_adam, gradient_norms
from hypercrl_kernels.training.network_gradient import network_gradient
from hypercrl_kernels.training.regularised_head import regularised_head
from hypercrl_kernels.training.regularised_head_reference import HeadGradients
from hypercrl_kernels.training.scaled_error import scaled_error
from hypercrl_kernels.training.step_parts import (
    NetworkGradient,
    Scales,
    Shares,
    Trained,
    TrunkAhead,
    WrittenGradient,
)
from hypercrl_kernels.training.trunk import Trunk
from hypercrl_kernels.training.trunk_ahead import trunk_ahead, trunk_back
from hypercrl_kernels.training.written_weights import (
    head_layers,
    last_outputs,
    written_gradient,
    written_weights,
)

__all__ = [
    "AdamMoments",
    "AdamSettings",
    "HeadGradients",
    "NetworkGradient",
    "Scales",
    "Shares",
    "Trained",
    "Trunk",
    "TrunkAhead",
    "WrittenGradient",
    "adam_ahead",
    "adam_step",
    "clipped_adam",
    "gradient_norms",
    "head_layers",
    "last_outputs",
    "network_gradient",
    "regularised_head",
    "scaled_error",
    "trunk_ahead",
    "trunk_back",
    "written_gradient",
    "written_weights",
]
