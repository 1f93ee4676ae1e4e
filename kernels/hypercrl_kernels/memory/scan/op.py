"""The scan kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.operators import differentiable, unless_traced
from hypercrl_kernels.memory.scan.launch import launch_backward, launch_forward

_ARGUMENTS = "Tensor log_decay, Tensor initial, Tensor? cu_seqlens"


scan_op = torch.library.custom_op(
    "hypercrl::scan",
    launch_forward,
    mutates_args=(),
    schema=f"(Tensor x, {_ARGUMENTS}) -> (Tensor, Tensor)",
)
scan_backward_op = torch.library.custom_op(
    "hypercrl::scan_backward",
    launch_backward,
    mutates_args=(),
    schema=f"(Tensor h, {_ARGUMENTS}, Tensor d_h, Tensor? d_final) -> (Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(scan_backward_op, launch_backward)


@scan_op.register_fake
def _(x, _, initial, *__):
    return torch.empty_like(x), torch.empty_like(initial)


@scan_backward_op.register_fake
def _(h, log_decay, initial, *_):
    return torch.empty_like(h), torch.empty_like(log_decay), torch.empty_like(initial)


def _setup_context(ctx, inputs, output) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], *inputs[1:])


@first_order
def _backward(ctx, d_h, d_final):
    h, *others = ctx.saved_tensors
    d_h = torch.zeros_like(h) if d_h is None else d_h
    return (*_run_backward(h, *others, d_h, d_final), None)


scan_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(scan_op, differentiable(launch_forward, _setup_context, _backward))


def scan_kernels(
    x: Tensor, log_decay: Tensor, initial_state: Tensor, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`scan` by the kernels; the initial state in float32."""
    return _run(x.contiguous(), log_decay.contiguous(), initial_state.contiguous(), cu_seqlens)
