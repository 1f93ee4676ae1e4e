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
from torch.nn.functional import logsigmoid, normalize

from hypercrl.memory.deltanet import DeltaNetConfig, DeltaNetLayer
from hypercrl.memory.gated_deltanet import GatedDeltaNetConfig, GatedDeltaNetLayer
from hypercrl.memory.kda import KDAConfig, KDALayer
from hypercrl.memory.mom import MoMConfig, MoMLayer
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
    mixed, _ = layer.convolution(x, layer.convolution.initial(len(x)))
    q = normalize(split(layer.query(mixed), HEADS), dim=-1)
    k, v = split(layer.write(mixed), 2, MEMORIES + 1, HEADS).unbind(2)
    k = normalize(k, dim=-1)
    strength = layer.strength(x).sigmoid().unflatten(-1, (-1, HEADS))
    decay = layer.decay(x).exp().unflatten(-1, (-1, HEADS))
    shares = layer.router(x).softmax(-1)
    outputs, finals = [], []
    for b in range(len(x)):
        memories = list(x.new_zeros(MEMORIES + 1, HEADS, *2 * (WIDTH // HEADS,)))
        for t in range(LENGTH):
            routed = shares[b, t].topk(layer.selected).indices.tolist()
            for i in [*routed, MEMORIES]:
                now = (k[b, t, i], v[b, t, i], decay[b, t, i], strength[b, t, i])
                memories[i] = delta_rule(memories[i], *now)
            whole = sum(shares[b, t, i] for i in routed)
            o = read(memories[MEMORIES], q[b, t])
            for i in routed:
                o = o + shares[b, t, i] / whole * read(memories[i], q[b, t])
            outputs.append(SCALE * o)
        finals.append(torch.cat(memories))
    o = torch.stack(outputs).unflatten(0, x.shape[:2])
    return layer.out(o, x), torch.stack(finals)


def sparse_state(layer: SSELayer, x: Tensor) -> tuple[Tensor, Tensor]:
    """Pan et al. 2025: e_i scales what a chosen partition is written and what is read of it."""
    q, k, v = split(layer.project(x), 3, HEADS).unbind(2)
    more_q, more_k = split(layer.difference(x), 2, HEADS).unbind(2)
    decay = (logsigmoid(split(layer.decay(x), HEADS)) / 16).exp()
    shares = layer.router(x).softmax(-1)
    outputs, finals = [], []
    for b in range(len(x)):
        parts = list(x.new_zeros(MEMORIES + 1, HEADS, *2 * (WIDTH // HEADS,)))
        for t in range(LENGTH):
            kept = decay[b, t, :, :, None]
            written = torch.einsum("hk,hv->hkv", k[b, t], v[b, t])
            parts[-1] = kept * parts[-1] + written
            o = read(parts[-1], q[b, t])
            for i in shares[b, t].topk(layer.selected).indices.tolist():
                written = torch.einsum("hk,hv->hkv", (k + more_k)[b, t], v[b, t])
                parts[i] = kept * parts[i] + shares[b, t, i] * written
                o = o + shares[b, t, i] * read(parts[i], (q + more_q)[b, t])
            outputs.append(SCALE * o)
        finals.append(torch.cat(parts))
    o = torch.stack(outputs).unflatten(0, x.shape[:2])
    return layer.out(o, x), torch.stack(finals)


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
    if name == "mom":
        config = MoMConfig(**SIZES, memories=MEMORIES, selected=2)
        return MoMLayer(config, g), mixture_of_memories, "chunk_memory"
    if name == "sse":
        config = SSEConfig(**SIZES, partitions=MEMORIES, selected=2)
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


NAMES = ["deltanet", "gated_deltanet", "deltaproduct", "kda", "mom", "sse", "titans"]
every = pytest.mark.parametrize("name", NAMES)


@every
def test_torch_operations_compute_the_recurrence(name: str) -> None:
    check(name, "cpu")


@every
def test_kernels_compute_the_recurrence(name: str, device: str, calls: Counter[str]) -> None:
    operation = check(name, device)
    assert set(calls) == {operation}
