"""Layers of memory against their papers' recurrences in float64, one step and memory at a time.

Once by torch operations, as on a CPU, and once by the kernels they are meant to lower onto.
"""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from importlib import import_module

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize, silu, softplus

from hypercrl.memory.deltanet import DeltaNetConfig, DeltaNetLayer
from hypercrl.memory.gated_deltanet import GatedDeltaNetConfig, GatedDeltaNetLayer
from hypercrl.memory.kda import KDAConfig, KDALayer
from hypercrl.memory.mom import MoMConfig, MoMLayer, SharedDecayGate
from hypercrl.memory.mom_inputs import ConvolvedInputs, RoutedInputs
from hypercrl.memory.neural_memory import MOST_MOMENTUM, MatrixMemory
from hypercrl.memory.sse import SSEConfig, SSELayer
from hypercrl.memory.stack import MemoryLayer

WIDTH, HEADS, MEMORIES, LENGTH, PERSISTENT = 32, 2, 3, 40, 2
SIZES = {"width": WIDTH, "heads": HEADS}
SCALE = (WIDTH // HEADS) ** -0.5


def split(x: Tensor, *sizes: int) -> Tensor:
    """[B, T, …·K] → [B, T, …, K]."""
    return x.unflatten(-1, (*sizes, WIDTH // HEADS))


def delta_rule(memory: Tensor, k: Tensor, v: Tensor, decay: Tensor, strength: Tensor) -> Tensor:
    """S ← α S; S ← S + β k (v − Sᵀk)ᵀ, for heads [H, K, V], decays [H] or [H, K]."""
    memory = decay.reshape(len(decay), -1, 1) * memory
    missing = v - torch.einsum("hkv,hk->hv", memory, k)
    return memory + torch.einsum("h,hk,hv->hkv", strength, k, missing)


def read(memory: Tensor, q: Tensor) -> Tensor:
    return torch.einsum("hkv,hk->hv", memory, q)


def delta_net(layer: DeltaNetLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    mixed, _ = layer.convolution(layer.project(x), layer.convolution.initial(len(x)))
    every = split(mixed, 1 + 2 * layer.writes, HEADS)
    q, k, v = every.split([1, layer.writes, layer.writes], 2)
    q, k = normalize(q[:, :, 0], dim=-1), normalize(k, dim=-1)
    strength = (layer.most * layer.strength(x).sigmoid()).unflatten(-1, (layer.writes, HEADS))
    decay = torch.ones_like(strength[:, :, 0])
    if isinstance(layer, GatedDeltaNetLayer | KDALayer):
        decay = layer.decay(x).exp()
    outputs, finals = [], []
    for b in range(len(x)):
        memory = x.new_zeros(HEADS, *2 * (WIDTH // HEADS,))
        for t in range(LENGTH):
            kept = decay[b, t]
            for i in range(layer.writes):
                memory = delta_rule(memory, k[b, t, i], v[b, t, i], kept, strength[b, t, i])
                kept = torch.ones_like(kept)
            outputs.append(SCALE * read(memory, q[b, t]))
        finals.append(memory)
    o = torch.stack(outputs).unflatten(0, x.shape[:2])
    return layer.out(o, x), torch.stack(finals)


def mixture_of_memories(layer: MoMLayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Du et al. 2025, section 3: of the memories only the routed ones and the shared one exist."""
    strength = layer.strength(x).sigmoid().unflatten(-1, (-1, HEADS))
    decay = decays(layer, x)
    shares = layer.router(x).softmax(-1)
    outputs, finals = [], []
    for b in range(len(x)):
        memories = list(x.new_zeros(MEMORIES + 1, HEADS, *2 * (WIDTH // HEADS,)))
        own: list[list[Tensor]] = [[] for _ in memories]  # what each memory was given so far
        for t in range(LENGTH):
            routed = shares[b, t].topk(layer.selected).indices.tolist()
            weights = [shares[b, t, i] / sum(shares[b, t, j] for j in routed) for i in routed]
            o = torch.zeros(())
            for i, weight in zip([*routed, MEMORIES], [*weights, 1.0], strict=True):
                own[i].append(x[b, t])
                seen = own[i] if isinstance(layer.inputs, RoutedInputs) else [*x[b, : t + 1]]
                q, k, v = told(layer.inputs, seen, i)
                memories[i] = delta_rule(memories[i], k, v, decay[b, t, i], strength[b, t, i])
                o = o + weight * read(memories[i], q)
            outputs.append(SCALE * o)
        finals.append(torch.cat(memories))
    o = torch.stack(outputs).unflatten(0, x.shape[:2])
    return layer.out(o, x), torch.stack(finals)


def told(inputs: ConvolvedInputs, seen: list[Tensor], memory: int) -> tuple[Tensor, ...]:
    """q, k and v [H, K] of a memory at the last of the steps that it has seen.

    The short convolution is over the last four, of x or, where it comes after routing, of q, k, v.
    """
    query = inputs.query.weight
    key, value = inputs.write.weight.unflatten(0, (2, MEMORIES + 1, WIDTH))[:, memory]
    taps = inputs.convolution.weight
    latest = torch.stack(seen[-len(taps) :])
    if isinstance(inputs, RoutedInputs):
        taps = taps.unflatten(-1, (3, WIDTH))[-len(latest) :]
        sums = [(latest @ w.T * taps[:, i]).sum(0) for i, w in enumerate((query, key, value))]
        q, k, v = map(silu, sums)
    else:
        mixed = silu((latest * taps[-len(latest) :]).sum(0))
        q, k, v = (w @ mixed for w in (query, key, value))
    q, k, v = (y.unflatten(0, (HEADS, -1)) for y in (q, k, v))
    return normalize(q, dim=-1), normalize(k, dim=-1), v


def decays(layer: MoMLayer, x: Tensor) -> Tensor:
    """exp(−exp(A) softplus(W_i x + b)), [B, T, M, H], A and b those of a memory or of all."""
    gate = layer.decay
    projected = gate.project(x).unflatten(-1, (MEMORIES + 1, HEADS))
    rate, bias = (y.unflatten(0, (-1, HEADS)) for y in (gate.log_rate, gate.bias))
    assert len(rate) == len(bias) == (1 if isinstance(gate, SharedDecayGate) else MEMORIES + 1)
    return (-rate.exp() * softplus(projected + bias)).exp()


def sparse_state(layer: SSELayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pan et al. 2025: e_i scales what a chosen partition is written and what is read of it."""
    q, k, v = split(layer.project(x), 3, HEADS).unbind(2)
    more_q, more_k = split(layer.difference(x), 2, HEADS).unbind(2)
    q, k = torch.stack([q, q + more_q]), torch.stack([k, k + more_k])  # of the fixed, of the sparse
    decay = torch.stack([split(gate(x), HEADS) for gate in (layer.decay, layer.sparse_decay)])
    decay = (logsigmoid(decay) / 16).exp()
    if layer.rows:
        q, v = silu(q), silu(v)
    shares = layer.router(x).softmax(-1)
    outputs, finals = [], []
    for b in range(len(x)):
        parts = list(x.new_zeros(MEMORIES + 1, HEADS, *2 * (WIDTH // HEADS,)))
        for t in range(LENGTH):
            o = torch.zeros(())
            for i in [MEMORIES, *shares[b, t].topk(layer.selected).indices.tolist()]:
                sparse = int(i < MEMORIES)
                share = shares[b, t, i] if sparse else torch.ones(())
                now = k[sparse, b, t], v[b, t], decay[sparse, b, t]
                write = written_by_rows if layer.rows else written
                parts[i] = write(parts[i], *now, share, layer.rows)
                o = o + share * read(parts[i], q[sparse, b, t])
            outputs.append(SCALE * o)
        finals.append(torch.cat(parts))
    o = torch.stack(outputs).unflatten(0, x.shape[:2])
    return layer.out(o, x), torch.stack(finals)


def written(part: Tensor, k: Tensor, v: Tensor, decay: Tensor, share: Tensor, _: int) -> Tensor:
    """Λ S + e k vᵀ, for heads [H, K, V]."""
    return decay[:, :, None] * part + share * torch.einsum("hk,hv->hkv", k, v)


def written_by_rows(
    part: Tensor, k: Tensor, v: Tensor, decay: Tensor, share: Tensor, count: int
) -> Tensor:
    """Λ S + e k vᵀ in the rows of the `count` largest keys, whose softmax they get; eq. 7."""
    best = torch.stack([row.argsort(descending=True)[:count] for row in k])
    keys = k.gather(-1, best).exp()
    keys = share * keys / keys.sum(-1, keepdim=True)
    heads = []
    for h, rows in enumerate(best):
        changed = decay[h, rows, None] * part[h, rows] + keys[h, :, None] * v[h]
        heads.append(part[h].index_put((rows,), changed))
    return torch.stack(heads)


def titans(layer: MatrixMemory, x: Tensor) -> tuple[Tensor, Tensor]:
    """Behrouz et al. 2025, eqs. 11 to 14, with ∇ℓ = k (Mᵀk − v)ᵀ."""
    assert layer.persistent is not None
    x = torch.cat([layer.persistent.expand(len(x), -1, -1), x], 1)
    mixed, _ = layer.convolution(layer.project(x), layer.convolution.initial(len(x)))
    q, k, v = split(mixed, 3, HEADS).unbind(2)
    q, k = normalize(q, dim=-1), normalize(k, dim=-1)
    kept, carried, rate = layer.gates(x).sigmoid().unflatten(-1, (3, HEADS)).unbind(2)
    carried = MOST_MOMENTUM * carried
    outputs, finals = [], []
    for b in range(len(x)):
        memory, surprise = layer.matrix, torch.zeros_like(layer.matrix)
        for t in range(x.shape[1]):
            wrong = read(memory, k[b, t]) - v[b, t]
            slope = torch.einsum("h,hk,hv->hkv", rate[b, t], k[b, t], wrong)
            surprise = carried[b, t, :, None, None] * surprise - slope
            memory = kept[b, t, :, None, None] * memory + surprise
            outputs.append(read(memory, q[b, t]))
        finals.append(torch.stack([memory, surprise], 1))
    o = torch.stack(outputs).unflatten(0, x.shape[:2])
    return layer.out(o, x)[:, PERSISTENT:], torch.stack(finals)


def layers(name: str) -> tuple[MemoryLayer, Callable[..., tuple[Tensor, Tensor]], str]:
    """A layer, its recurrence, and the operation it lowers onto."""
    g = torch.Generator().manual_seed(0)
    if name == "deltanet":
        return DeltaNetLayer(DeltaNetConfig(**SIZES), g), delta_net, "chunk_memory"
    if name == "gated_deltanet":
        return GatedDeltaNetLayer(GatedDeltaNetConfig(**SIZES), g), delta_net, "chunk_memory"
    if name == "deltaproduct":
        config = GatedDeltaNetConfig(**SIZES, writes=2, negative_eigenvalues=True)
        return GatedDeltaNetLayer(config, g), delta_net, "chunk_memory"
    if name == "kda":
        return KDALayer(KDAConfig(**SIZES), g), delta_net, "chunk_gla"
    if name.startswith("mom"):
        form = {"convolution": "routed", "shared_decay": True} if name == "mom-routed" else {}
        config = MoMConfig(**SIZES, memories=MEMORIES, selected=2, **form)
        return MoMLayer(config, g), mixture_of_memories, "chunk_memory"
    if name.startswith("sse"):
        rows = {"sse": 0, "sse-rows": 5, "sse-softmax": WIDTH // HEADS}[name]
        config = SSEConfig(**SIZES, partitions=MEMORIES, selected=2, rows=rows)
        return SSELayer(config, g), sparse_state, "chunk_gla"
    layer = MatrixMemory(WIDTH, HEADS, g, PERSISTENT)
    with torch.no_grad():
        layer.matrix.copy_(0.3 * torch.randn(layer.matrix.shape, generator=g))
    return layer, titans, "chunk_memory"


@pytest.fixture
def calls(device: str, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Operations take their kernels on any device; counts the calls of each."""
    counted = Counter()
    for operation, kernels in (("chunk_memory", "memory_kernels"), ("chunk_gla", "gla_kernels")):
        module = import_module(f"hypercrl_kernels.memory.{operation}.op")
        run = getattr(module, kernels)

        def call(*arguments, run=run, operation=operation):
            counted[operation] += 1
            return run(*arguments)

        monkeypatch.setattr(module, kernels, call)
        public = import_module(f"hypercrl_kernels.memory.{operation}.api")
        monkeypatch.setattr(public, "runs_as_kernel", lambda _, x, reason: reason is None)
    return counted


def away(a: Tensor, b: Tensor) -> float:
    return float((a.detach().double() - b.detach()).norm() / b.detach().norm())


def check(name: str, device: str) -> str:
    """The layer and its gradients against its recurrence; the operation it is to lower onto."""
    layer, recurrence, operation = layers(name)
    g = torch.Generator().manual_seed(1)
    x = torch.randn(2, LENGTH, WIDTH, generator=g)
    exact = deepcopy(layer).double()
    exact.out.norm.eps = torch.finfo(torch.float32).eps  # by default it is the dtype's
    wanted, wanted_memory = recurrence(exact, x.double())
    d_o = torch.randn(wanted.shape, generator=g)
    d_memory = torch.randn(wanted_memory.shape, generator=g)
    ((wanted * d_o).sum() + (wanted_memory * d_memory).sum()).backward()
    layer, x = layer.to(device), x.to(device)
    o, state = layer(x, layer.initial(2))
    ((o * d_o.to(device)).sum() + (state["memory"] * d_memory.to(device)).sum()).backward()
    assert away(o.cpu(), wanted) < 1e-4
    assert away(state["memory"].cpu(), wanted_memory) < 1e-4
    exact = dict(exact.named_parameters())
    for own, parameter in layer.named_parameters():
        assert parameter.grad is not None
        assert exact[own].grad is not None
        assert away(parameter.grad.cpu(), exact[own].grad) < 1e-4, own
    return operation


LAYERS = ["deltanet", "gated_deltanet", "deltaproduct", "kda", "mom", "sse", "titans"]
FORMS = ["mom-routed", "sse-rows", "sse-softmax"]
"""Of those, which call the same operations."""


@pytest.mark.parametrize("name", [*LAYERS, *FORMS])
def test_torch_operations_compute_the_recurrence(name: str) -> None:
    check(name, "cpu")


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_compute_the_recurrence(name: str, device: str, calls: Counter[str]) -> None:
    operation = check(name, device)
    assert set(calls) == {operation}
