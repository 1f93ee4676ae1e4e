"""The recurrence that defines Titans' MLP memory: whole weights at each step."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

from hypercrl_kernels.memory.arguments import segments

Activation = Literal["gelu", "silu"]


class MLPState(NamedTuple):
    """Weights of the memory σ(x W₁) W₂ and their momenta.

    Attributes:
        w1, s1: [N, H, K, F].
        w2, s2: [N, H, F, V].

    Momenta may be None where a memory starts, for one at rest: they are zero. Those that come out
    never are.
    """

    w1: Tensor
    w2: Tensor
    s1: Tensor | None = None
    s2: Tensor | None = None

    @classmethod
    def fresh(cls, w1: Tensor, w2: Tensor, count: int) -> MLPState:
        """`count` memories at rest, all of the same w1 [H, K, F] and w2 [H, F, V], not copied."""
        return cls(*(w.expand(count, *w.shape) for w in (w1, w2)))

    def in_full(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All four; momenta at rest are zeros, which lie in memory once if the weights do."""
        w1, w2, s1, s2 = self
        return w1, w2, _zeros(w1) if s1 is None else s1, _zeros(w2) if s2 is None else s2


def _zeros(w: Tensor) -> Tensor:
    return torch.zeros_like(w[:1] if w.stride(0) == 0 else w).expand(w.shape)


def mlp_memory_recurrence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    state: MLPState,
    *,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    activation: Activation = "gelu",
    cu_seqlens: Tensor | None = None,
    chunk: int = 32,
) -> tuple[Tensor, MLPState]:
    """`chunk_mlp_memory` with whole weights at each step, and gradients by autograd."""
    gates = (log_decay, beta, log_momentum)
    if cu_seqlens is not None:
        outputs, states = [], []
        for i, at in enumerate(segments(cu_seqlens)):
            own = MLPState(*(s[i : i + 1] for s in state.in_full()))
            named = zip(("log_decay", "beta", "log_momentum"), gates, strict=True)
            part = {name: None if gate is None else gate[:, at] for name, gate in named}
            o, own = mlp_memory_recurrence(
                *(x[:, at] for x in (q, k, v)),
                state=own,
                **part,
                activation=activation,
                chunk=chunk,
            )
            outputs.append(o)
            states.append(own.in_full())
        return torch.cat(outputs, 1), MLPState(*(torch.cat(s) for s in zip(*states, strict=True)))

    sigma = gelu if activation == "gelu" else silu

    def loss(w1: Tensor, w2: Tensor, key: Tensor, value: Tensor) -> Tensor:
        hidden = sigma(torch.einsum("bhk,bhkf->bhf", key, w1))
        return 0.5 * (torch.einsum("bhf,bhfv->bhv", hidden, w2) - value).square().sum()

    dtype = state.w1.dtype
    w1, w2, *momenta = state.in_full()
    weights = [w1, w2]
    start, outputs = weights, []
    for t in range(q.shape[1]):
        read, key, value = (x[:, t].to(dtype) for x in (q, k, v))
        decay, strength, momentum = (
            None if gate is None else gate[:, t, :, None, None].to(dtype) for gate in gates
        )
        if t % chunk == 0:
            start = weights
        gradients = torch.func.grad(loss, argnums=(0, 1))(*start, key, value)
        steps = [-g if strength is None else -strength * g for g in gradients]
        if momentum is not None:
            steps = momenta = [momentum.exp() * s + u for s, u in zip(momenta, steps, strict=True)]
        if decay is not None:
            weights = [decay.exp() * w for w in weights]
        weights = [w + s for w, s in zip(weights, steps, strict=True)]
        hidden = sigma(torch.einsum("bhk,bhkf->bhf", read, weights[0]))
        outputs.append(torch.einsum("bhf,bhfv->bhv", hidden, weights[1]))
    o = torch.stack(outputs, 1) if outputs else torch.zeros_like(v)
    return o.to(v.dtype), MLPState(*weights, *momenta)
