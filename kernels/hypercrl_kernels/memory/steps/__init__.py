"""One step of each memory, of attention, and of the layers around them, for control."""

from hypercrl_kernels.memory.steps.api import (
    based_step,
    gla_step,
    memory_step,
    mlp_memory_step,
    scan_step,
)
from hypercrl_kernels.memory.steps.attention import attention_step
from hypercrl_kernels.memory.steps.layers import convolution_step, linear_step

__all__ = [
    "attention_step",
    "based_step",
    "convolution_step",
    "gla_step",
    "linear_step",
    "memory_step",
    "mlp_memory_step",
    "scan_step",
]
