"""KDA and gated DeltaProduct of `chunk_memory` beside flash-linear-attention's recurrences.

Relative differences of outputs, final states and of the worst gradient, in float32 on a CPU.

    pip install fla-core==0.6.0 einops
    python scripts/compare_deltas.py
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hypercrl_kernels import chunk_memory

Rule = Callable[..., tuple[Tensor, Tensor]]


def delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
    return chunk_memory(
        q, k, v, log_decay=g, beta=beta, error="after_decay", scale=1.0, initial_state=state
    )


def kda(*x: Tensor) -> Any:
    naive = importlib.import_module("fla.ops.kda.naive").naive_recurrent_kda
    *sequences, state = x
    return naive(*sequences, scale=1.0, initial_state=state, output_final_state=True)


def product(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor) -> Any:
    module = importlib.import_module("fla.ops.gated_delta_product.naive")
    each = [x.flatten(1, 2) for x in (k, v)]
    return module.naive_recurrent_gated_delta_product(
        q, *each, g, beta.flatten(1, 2), 1.0, None, state, True, k.shape[2]
    )


def with_gradients(rule: Rule, x: Sequence[Tensor], cotangents: Sequence[Tensor]) -> list[Tensor]:
    leaves = [t.clone().requires_grad_() for t in x]
    outputs = rule(*leaves)
    loss = sum((o * d).sum() for o, d in zip(outputs, cotangents, strict=True))
    assert isinstance(loss, Tensor)
    return [*(o.detach() for o in outputs), *torch.autograd.grad(loss, leaves)]


def compare(name: str, theirs: Rule, groups: int, heads: int, width: int, writes: int) -> None:
    g = torch.Generator().manual_seed(0)

    def randn(*size: int) -> Tensor:
        return torch.randn(*size, generator=g)

    lead, values = (2, 100), 12
    each = (writes,) if writes > 1 else ()
    decay = (heads,) if writes > 1 else (heads, width)
    x = [
        normalize(randn(*lead, groups, width), dim=-1),
        normalize(randn(*lead, *each, groups, width), dim=-1),
        randn(*lead, *each, heads, values),
        -0.3 * torch.rand(*lead, *decay, generator=g),
        2 * torch.rand(*lead, *each, heads, generator=g),
        randn(2, heads, width, values),
    ]
    cotangents = [randn(*lead, heads, values), randn(2, heads, width, values)]
    ours, others = (with_gradients(rule, x, cotangents) for rule in (delta_rule, theirs))
    away = [float((a - b).norm() / b.norm()) for a, b in zip(ours, others, strict=True)]
    print(f"{name:34} output {away[0]:.1e}  state {away[1]:.1e}  gradients {max(away[2:]):.1e}")


def main() -> None:
    torch.set_num_threads(1)
    compare("KDA, 4 heads of 64", kda, 4, 4, 64, 1)
    compare("KDA, 4 heads of 16, 2 of q and k", kda, 2, 4, 16, 1)
    for writes in (2, 3):
        compare(f"gated DeltaProduct, {writes} writes", product, 4, 4, 16, writes)


if __name__ == "__main__":
    main()
