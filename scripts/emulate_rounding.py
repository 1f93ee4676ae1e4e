"""What each rounding of the Gated DeltaNet kernels in bfloat16 costs the gradient of its decays.

Both passes of `chunk_memory` in float64, rounded where the kernels round, on keys of a random walk.
Prints the relative error of every gradient, and that of the decay's with one rounding at a time.

    python scripts/emulate_rounding.py
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hypercrl_kernels.memory.chunk_memory.chunked import memory_chunks

NAMES = ("q", "k", "v", "log_decay", "beta")
PLACES = (
    "T, by products of float16", "T, kept", "states", "known", "write", "carried", "d_write",
    "scores of queries", "scores of keys", "read weight", "reads",
)  # fmt: skip


def half(x: Tensor) -> Tensor:
    return x.bfloat16().double()


class Rounding:
    """bfloat16 at the places named, nothing elsewhere."""

    def __init__(self, places: Iterable[str]) -> None:
        self.places = set(places)

    def __call__(self, place: str, x: Tensor) -> Tensor:
        return half(x) if place in self.places else x

    def inverse(self, lower: Tensor, old: bool) -> Tensor:
        """(I + lower)⁻¹ as `_inverse` makes it of a whole chunk."""
        unit = torch.eye(lower.shape[-1], dtype=lower.dtype)
        if "T, by products of float16" not in self.places:
            return torch.linalg.inv(unit + lower)
        i = torch.arange(len(unit))
        own = torch.where(i[:, None] // 16 == i // 16, lower, 0.0)
        inverse = unit - torch.where((i[:, None] ^ i) == 1, own, 0.0)
        doublings = (len(unit) // 16).bit_length() - 1
        for block in [own] * 3 + [lower] * doublings:
            block, t = block.half().double(), inverse.half().double()
            if old:
                inverse = 2 * inverse - t @ (block @ t + inverse).half().double()
            else:
                inverse = t - t @ (block @ t + t - unit).half().double()
        return inverse

    def kept(self, inverse: Tensor, old: bool) -> Tensor:
        if "T, kept" not in self.places:
            return inverse
        high = half(inverse)
        return high if old else high + half(inverse - high)


def errors(
    x: dict[str, Tensor], d_o: Tensor, exact: dict[str, Tensor], chunk: int, rounding: Rounding,
    old: bool,
) -> dict[str, float]:  # fmt: skip
    """Relative errors of o and of the gradients; x of [N, B H, C, D], a chunk after another."""
    r = rounding
    memory = x["k"].new_zeros(x["k"].shape[1], x["k"].shape[3], x["v"].shape[3])
    d_memory, saved, outputs = torch.zeros_like(memory), [], []
    lower = torch.ones(chunk, chunk, dtype=torch.bool).tril()
    for n in range(len(x["k"])):
        q, k, v, g, beta = (x[name][n] for name in NAMES)
        total = g.cumsum(1)
        kept = torch.where(lower, (total - total.mT), -torch.inf).exp()
        a, c = total.exp(), (total[:, -1:] - total).exp()
        mixing = beta * (k @ k.mT) * kept.tril(-1)
        solve = r.kept(r.inverse(mixing, old), old)
        start = r("states", memory)
        saved.append((kept, a, c, solve, start))
        write = solve @ r("known", beta * (v - a * (k @ start)))
        scores = r("scores of queries", (q @ k.mT) * kept)
        outputs.append(half(a * (q @ start) + scores @ r("write", write)))
        memory = memory * a[:, -1:] + k.mT @ r("carried", c * write)
    found: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    for n in reversed(range(len(saved))):
        q, k, v, g, beta = (x[name][n] for name in NAMES)
        kept, a, c, solve, start = saved[n]
        later, d_out = r("states", d_memory), d_o[n]
        right = v - a * (k @ start)
        write = r("write", solve @ r("known", beta * right))
        d_write = r("read weight", (q @ k.mT) * kept).mT @ d_out + c * (k @ later)
        d_write = solve.mT @ r("d_write", d_write)
        d_v = beta * d_write
        pairs = (d_out @ write.mT).tril() * kept
        weighted = r("scores of queries", pairs)
        d_q, d_k = weighted @ k, weighted.mT @ q
        pairs = pairs * (q @ k.mT)
        from_start, predicts = d_out @ start.mT, r("d_write", d_v) @ start.mT
        to_end = write @ later.mT
        d_q, d_k, d_predicting = d_q + a * from_start, d_k + c * to_end, -a * predicts
        mixed = -(r("d_write", d_write) @ write.mT).tril(-1) * kept
        weighted = r("scores of keys", beta * mixed)
        d_k = d_k + weighted.mT @ k
        d_predicting = d_predicting + (
            beta * (r("scores of keys", mixed) @ k) if old else weighted @ k
        )
        mixed = mixed * (k @ k.mT)
        pairs = pairs + beta * mixed
        leaves = c * (k * to_end).sum(-1, keepdim=True)
        if old:
            d_sum = (q * d_q - k * d_k + k * d_predicting).sum(-1, keepdim=True)
        else:
            d_sum = (pairs - pairs.mT).sum(-1, keepdim=True) - leaves
            d_sum = d_sum + a * (q * from_start - k * predicts).sum(-1, keepdim=True)
        d_sum[:, -1:] += leaves.sum(1, True) + a[:, -1:] * (start * d_memory).sum((1, 2), True)
        d_decay = d_sum.flip(1).cumsum(1).flip(1)
        d_beta = (d_write * right).sum(-1, keepdim=True) + mixed.sum(-1, keepdim=True)
        every = (half(d_q), half(d_k + d_predicting), half(d_v), d_decay, d_beta)
        for name, gradient in zip(NAMES, every, strict=True):
            found[name].insert(0, gradient)
        d_memory = d_memory * a[:, -1:] + r("reads", a * q).mT @ d_out
        d_memory = d_memory - k.mT @ r("d_write", a * d_v)
    got = {"o": torch.stack(outputs)} | {n: torch.stack(parts) for n, parts in found.items()}
    return {n: float((got[n] - exact[n]).norm() / exact[n].norm()) for n in exact}


def inputs(length: int, strength: float | None) -> tuple[dict[str, Tensor], Tensor]:
    """Four sequences of four heads of 64, as the kernels read them, and the gradient of o."""
    g = torch.Generator().manual_seed(0)
    lead = (4, length, 4)
    walk = torch.randn(*lead, 64, generator=g)
    walk[:, 1:] *= 0.1
    keys = normalize(walk.cumsum(1), dim=-1)
    beta = 2 * torch.randn(*lead, generator=g).sigmoid()
    x = {"q": keys.roll(1, 1), "k": keys, "v": torch.randn(*lead, 64, generator=g)}
    x = {name: half(value) for name, value in x.items()}
    x["log_decay"] = (-0.01 * torch.randn(*lead, generator=g).abs()).double()
    x["beta"] = (beta if strength is None else torch.full_like(beta, strength)).double()
    return x, half(torch.randn(*lead, 64, generator=g))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--length", type=int, default=320, help="steps, a multiple of 64")
    parser.add_argument("--strength", type=float, help="β; without it 2 σ(N(0, 1))")
    arguments = parser.parse_args()
    x, d_o = inputs(arguments.length, arguments.strength)
    leaves = {name: value.requires_grad_() for name, value in x.items()}
    q, k, v, log_decay, beta = leaves.values()
    o, _ = memory_chunks(q, k, v, log_decay=log_decay, beta=beta, error="after_decay")
    gradients = dict(zip(leaves, torch.autograd.grad(o, list(leaves.values()), d_o), strict=True))
    for chunk in (16, 32, 64):

        def cut(value: Tensor, chunk: int = chunk) -> Tensor:
            value = value.detach() if value.dim() == 4 else value.detach()[..., None]
            return value.unflatten(1, (-1, chunk)).permute(1, 0, 3, 2, 4).flatten(1, 2)

        exact = {n: cut(value) for n, value in {"o": o, **gradients}.items()}
        rows = {n: cut(value) for n, value in x.items()}
        for old in (True, False):
            form = "rows, T in one part" if old else "pairs, T in two parts"
            found = errors(rows, cut(d_o), exact, chunk, Rounding(PLACES), old)
            print(f"chunk {chunk}, {form:22}", {n: round(e, 4) for n, e in found.items()})
            for place in PLACES:
                alone = errors(rows, cut(d_o), exact, chunk, Rounding([place]), old)
                print(f"    {place:28}{alone['log_decay']:8.4f}")


if __name__ == "__main__":
    main()
