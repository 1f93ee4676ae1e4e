"""Every memory encoder keeps the contract of hypercrl.memory.base, and does what its paper says."""

import itertools
from importlib import import_module

import pytest
import torch
from torch import Tensor

from hypercrl.base.cuda_graph import CapturedFunction
from hypercrl.memory import MEMORIES, MemoryConfig, MemoryEncoder, make_memory
from hypercrl.memory.attention import WindowAttention
from hypercrl.memory.blocks import Rotation
from hypercrl.memory.deltanet import DeltaNetConfig, DeltaNetLayer
from hypercrl.memory.hgrn import HGRNLayer
from hypercrl.memory.hopfield import HopfieldConfig, LearnedPatternsLayer
from hypercrl.memory.hybrid import LINEAR
from hypercrl.memory.mom import MoMLayer
from hypercrl.memory.mom_inputs import packing
from hypercrl.memory.neural_memory import NeuralMemory
from hypercrl.memory.routing import balance_loss, largest, renormalised, route
from hypercrl.memory.sse import SSELayer
from hypercrl.memory.stack import MemoryStack

INPUTS = 5


def encoder(name: str, seed: int = 0, **settings: object) -> MemoryEncoder:
    sizes = {"width": 16, "layers": 2, "heads": 2, "context": 6, **settings}
    config: MemoryConfig = MEMORIES[name][1](name=name, **sizes)
    return make_memory(config, INPUTS, torch.Generator().manual_seed(seed))


def tokens(batch: int = 3, length: int = 11, seed: int = 1) -> Tensor:
    return torch.randn(batch, length, INPUTS, generator=torch.Generator().manual_seed(seed))


CASES: dict[str, dict[str, object]] = {
    **{name: {} for name in MEMORIES},
    "transformer": {"window": 4},
    "based": {"window": 4},
    "titans_mac": {"window": 4},
    "titans_mac-mlp": {"window": 4, "inner": "mlp"},
    "titans_mag": {"window": 4},
    "titans_mag-mlp": {"window": 4, "inner": "mlp"},
    "titans_mal": {"window": 4},
    "hopfield": {"window": 4},
    "hopfield-pooling": {"window": 4, "form": "pooling"},
    "hopfield-layer": {"form": "layer"},
    "hopfield-both": {"window": 20, "form": "both", "updates": 1, "beta": 2.0},
    "deltanet-product": {"writes": 3, "negative_eigenvalues": True},
    "kda-product": {"writes": 2},
    "hybrid": {"layers": 4, "window": 4},
    "hybrid-hgrn": {"layers": 6, "window": 20, "linear": "hgrn", "ratio": 2},
    "hybrid-sse": {"layers": 3, "window": 4, "linear": "sse", "ratio": 2, "settings": {"rows": 3}},
    "sse-dense": {"rows": 0, "selected": 2},
    "mom-routed": {"convolution": "routed", "shared_decay": True},
}
every = pytest.mark.parametrize("case", CASES)
learned = pytest.mark.parametrize("case", [case for case in CASES if case != "none"])
FORMS = ("hybrid-sse", "sse-dense", "mom-routed")
"""Whose steps are by the kernels of others."""
stepped = pytest.mark.parametrize("case", [c for c in CASES if c not in ("none", *FORMS)])


def of(case: str) -> MemoryEncoder:
    return encoder(case.split("-")[0], **CASES[case])


@every
def test_steps_equal_encode(case: str) -> None:
    memory, x = of(case), tokens()
    contexts, last = memory.encode(x)
    assert contexts.shape == (3, 11, memory.context_size)
    state = memory.initial(3)
    for t in range(x.shape[1]):
        state = memory.step(state, x[:, t])
        torch.testing.assert_close(memory.read(state), contexts[:, t], rtol=1e-4, atol=1e-4)
    assert state.keys() == last.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, last[name], rtol=1e-4, atol=1e-4)


@stepped
def test_steps_by_kernels_equal_encode(
    case: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels take steps on any device: on a CPU, in Triton's interpreter."""
    for name in ("api", "layers", "attention"):
        module = import_module(f"hypercrl_kernels.memory.steps.{name}")
        monkeypatch.setattr(module, "step_as_kernel", lambda *_: True)
    memory, x = of(case), tokens(2, 6)
    contexts, last = memory.encode(x)
    memory, state = memory.to(device), memory.to(device).initial(2)
    for t in range(x.shape[1]):
        state = memory.step(state, x[:, t].to(device))
        read = memory.read(state).cpu()
        torch.testing.assert_close(read, contexts[:, t], rtol=1e-4, atol=1e-4)
    for name, value in state.items():
        torch.testing.assert_close(value.cpu(), last[name], rtol=1e-4, atol=1e-4)


@every
def test_two_halves_equal_the_whole(case: str) -> None:
    memory, x = of(case), tokens()
    whole, last = memory.encode(x)
    first, between = memory.encode(x[:, :5])
    kept = {name: value.clone() for name, value in between.items()}
    second, end = memory.encode(x[:, 5:], between)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-4, atol=1e-4)
    for name, value in end.items():
        torch.testing.assert_close(value, last[name], rtol=1e-4, atol=1e-4)
        assert torch.equal(kept[name], between[name]), "encode wrote into the state it was given"


def place_of(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


@every
def test_a_state_shares_no_memory_with_anything(case: str) -> None:
    """Steps write into it: they must not reach contexts, another state, tokens or parameters."""
    memory, x = of(case), tokens()
    contexts, first = memory.encode(x[:, :1])
    more, second = memory.encode(x[:, 1:2], first)
    others = (x, contexts, more, *memory.parameters(), *memory.buffers())
    owned = [place_of(y) for y in (*first.values(), *second.values()) if y.numel()]
    assert len(set(owned)) == len(owned)
    assert not set(owned) & {place_of(y) for y in others}


@every
def test_robots_do_not_see_each_other(case: str) -> None:
    memory, x = of(case), tokens()
    other = x.clone()
    other[1:] = 10 * tokens(2, seed=2)
    before, after = memory.encode(x)[0], memory.encode(other)[0]
    torch.testing.assert_close(after[0], before[0], rtol=1e-5, atol=1e-6)
    if memory.context_size:
        assert not torch.allclose(after[1], before[1], atol=1e-3)


@every
def test_steps_write_in_place(case: str) -> None:
    memory, x = of(case), tokens()
    state = memory.initial(3)
    addresses = {name: value.data_ptr() for name, value in state.items()}
    state = memory.step(state, x[:, 0])
    assert {name: value.data_ptr() for name, value in state.items()} == addresses


@every
def test_parameters_come_from_the_generator_alone(case: str) -> None:
    torch.manual_seed(0)
    first = of(case).state_dict()
    torch.manual_seed(1)
    untouched = torch.random.get_rng_state()
    second = of(case).state_dict()
    assert torch.equal(untouched, torch.random.get_rng_state())
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("inner", ["linear", "mlp"])
def test_titans_memories_stay_bounded_whatever_they_are_told(inner: str) -> None:
    """Keys like those of a trajectory, large values, and gates at their extremes."""
    sizes = {"width": 64, "inner": inner, "layers": 1}
    memory = encoder("titans_mal", **sizes)
    for parameter in memory.parameters():
        parameter.requires_grad_(False)
    assert isinstance(memory, MemoryStack)
    neural = memory.blocks[0].layer.memory
    assert isinstance(neural, NeuralMemory)
    neural.project.weight.mul_(5.0)
    neural.gates.bias[2:] = 3.0  # η and θ near 1
    g = torch.Generator().manual_seed(1)
    walk = torch.randn(8, 1, 64, generator=g) + 0.1 * torch.randn(8, 300, 64, generator=g).cumsum(1)
    state = neural.initial(8)
    mixed, _ = neural.convolution(neural.project(walk), state.pop("before"))
    _, after = neural._sequence(neural._split(mixed), neural._gates(walk), state)
    largest = neural._split(mixed)[2].norm(dim=-1).max()
    for name, value in after.items():
        assert value.abs().max() < 20 * largest, name


@learned
def test_gradients_reach_every_parameter(case: str) -> None:
    memory = of(case)
    contexts, _ = memory.encode(tokens(4, 24))
    (contexts.square().sum() + memory.auxiliary_loss()).backward()
    for name, parameter in memory.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@every
def test_state_bytes(case: str) -> None:
    memory = of(case)
    state = memory.encode(tokens(3, 40))[1]
    size = sum(value.numel() * value.element_size() for value in state.values())
    assert size == 3 * memory.state_bytes(), "a state must not grow"


def test_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"X=5.*\(3, 11, 4\)"):
        encoder("gru").encode(tokens()[..., :4])


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"width must be a multiple of 2 · memory.heads = 6, not 1"
    ):
        encoder("gla", heads=3)
    with pytest.raises(ValueError, match=r"layers must be at least memory.ratio"):
        encoder("hybrid", layers=3, ratio=3)
    with pytest.raises(ValueError, match=r"selected must be at most memory.memories=2, not 3"):
        encoder("mom", memories=2, selected=3)
    with pytest.raises(ValueError, match=r"selected must be at most memory.partitions=2, not 3"):
        encoder("sse", partitions=2, selected=3)
    for rows in (1, 9):  # the softmax of one row is 1, whatever its key
        with pytest.raises(ValueError, match=rf"rows must be 0, or from 2 to .* = 8, not {rows}"):
            encoder("sse", rows=rows)


@pytest.mark.parametrize(
    ("ratio", "layers", "full"),
    [(3, 4, [3]), (1, 4, [1, 3]), (2, 7, [2, 5]), (6, 7, [6]), (24, 25, [24])],
)
def test_hybrids_have_full_attention_where_the_ratio_says(
    ratio: int, layers: int, full: list[int]
) -> None:
    memory = encoder("hybrid", ratio=ratio, layers=layers)
    assert isinstance(memory, MemoryStack)
    kinds = [isinstance(block.layer, WindowAttention) for block in memory.blocks]
    assert [i for i, is_full in enumerate(kinds) if is_full] == full
    assert len(kinds) == layers


@pytest.mark.parametrize("linear", LINEAR)
def test_hybrids_are_over_every_linear_memory(linear: str) -> None:
    """The linear layers are those of the family alone, routing losses among them."""
    memory, alone = encoder("hybrid", linear=linear, layers=4), encoder(linear, layers=3)
    assert isinstance(memory, MemoryStack)
    assert isinstance(alone, MemoryStack)
    kinds = [type(block.layer) for block in memory.blocks]
    assert kinds == [*(type(block.layer) for block in alone.blocks), WindowAttention]
    memory.encode(tokens())
    alone.encode(tokens())
    assert (memory.auxiliary_loss() > 0) == (alone.auxiliary_loss() > 0)


def test_a_hybrids_linear_layers_have_settings_of_their_own() -> None:
    settings = {"rows": 4, "partitions": 2, "balance": 0.5}
    memory = encoder("hybrid", linear="sse", layers=4, settings=settings)
    assert isinstance(memory, MemoryStack)
    for block in memory.blocks[:3]:
        layer = block.layer
        assert isinstance(layer, SSELayer)
        assert (layer.rows, layer.every, layer.balance) == (4, 3, 0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"row": 4}, r"settings.row: sse has balance, partitions, rank, rows, selected"),
        ({"width": 4}, r"settings.width: sse has balance"),
        (
            {"rows": "many"},
            r"memory.settings.rows is a whole number, such as .*rows=\d+, not 'many'$",
        ),
        ({"rows": 800}, r"memory.settings.rows must be 0, .* memory.width / memory.heads"),
        ({"partitions": 1}, r"settings.partitions must be at least 2, not 1"),
        ({"rows": 9}, r"rows must be 0, or from 2 to .* = 8, not 9"),
        (3, r"memory.settings is \{SETTING: VALUE\}, not 3"),
    ],
)
def test_settings_that_a_hybrids_family_does_not_have_are_refused(
    settings: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder("hybrid", linear="sse", layers=4, settings=settings)


def test_a_hybrids_linear_layers_keep_their_order() -> None:
    memory = encoder("hybrid", linear="hgrn", ratio=2, layers=6)
    assert isinstance(memory, MemoryStack)
    linear = [block.layer for block in memory.blocks if isinstance(block.layer, HGRNLayer)]
    assert [layer.index for layer in linear] == [0, 1, 2, 3], "bounds of what is kept must rise"


@pytest.mark.parametrize("window", [3, 20])
def test_a_window_is_softmax_attention_to_its_last_steps(window: int) -> None:
    layer = WindowAttention(8, 2, window, torch.Generator().manual_seed(0), persistent=2)
    x = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(1))
    o, _ = layer(x, layer.initial(2))
    time = torch.arange(9)
    q, k, v = (part.unflatten(-1, (2, 4)) for part in layer.project(x).chunk(3, -1))
    q, k = (layer.rotation(part, time.expand(2, 9)) for part in (q, k))
    assert layer.persistent is not None
    for t in range(9):
        seen = slice(max(0, t - window + 1), t + 1)
        for h in range(2):
            keys = torch.cat([layer.persistent[0, :, h].expand(2, 2, 4), k[:, seen, h]], 1)
            values = torch.cat([layer.persistent[1, :, h].expand(2, 2, 4), v[:, seen, h]], 1)
            p = (torch.einsum("bk,bsk->bs", q[:, t, h], keys) / 2).softmax(-1)
            expected = torch.einsum("bs,bsv->bv", p, values)
            part = torch.nn.functional.linear(expected, layer.out.weight[:, 4 * h : 4 * h + 4])
            o = o - torch.nn.functional.pad(part[:, None], (0, 0, t, 8 - t))
    torch.testing.assert_close(o, torch.zeros_like(o), atol=1e-5, rtol=0)


def test_positions_turn_scores_by_the_lag_alone() -> None:
    g = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 1, 8, generator=g), torch.randn(1, 1, 8, generator=g)

    def score(at: int, before: int) -> Tensor:
        turn = Rotation(8)
        return (turn(q, torch.tensor([at])) * turn(k, torch.tensor([before]))).sum()

    torch.testing.assert_close(score(3, 1), score(103, 101), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(3, 1), score(3, 2))


def test_hgrn_at_a_constant_input_is_a_geometric_series() -> None:
    memory = encoder("hgrn", layers=3)
    assert isinstance(memory, MemoryStack)
    layer = memory.blocks[2].layer
    assert isinstance(layer, HGRNLayer)
    with torch.no_grad():
        layer.bounds[0].gamma.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(1, 1, 16, generator=torch.Generator().manual_seed(1))
    entry, gate = layer.project(x)[0, 0].chunk(2)
    shares = layer.bounds[0].gamma.softmax(0)
    bound = shares.cumsum(0)[2] - shares[0]
    f = bound + (1 - bound) * gate.sigmoid()
    _, after = layer(x.expand(1, 7, 16), layer.initial(1))
    torch.testing.assert_close(after["memory"][0, 0], torch.nn.functional.silu(entry) * (1 - f**7))


def test_deltanet_replaces_what_it_had_written_for_a_key() -> None:
    layer = DeltaNetLayer(DeltaNetConfig(width=8, heads=1), torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.strength.bias.fill_(30.0)  # β = 1
    state = layer.initial(1)
    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(1))
    for _ in range(6):
        layer.step(x, state)
    _, k, v = layer._split(layer.convolution.step(layer.project(x), state["convolution"]))
    torch.testing.assert_close(torch.einsum("bhk,bhkv->bhv", k, state["memory"]), v)
    x = -x
    for _ in range(6):
        layer.step(x, state)
    _, k, v = layer._split(layer.convolution.step(layer.project(x), state["convolution"]))
    torch.testing.assert_close(torch.einsum("bhk,bhkv->bhv", k, state["memory"]), v)


@pytest.mark.parametrize("name", ["mom", "sse"])
def test_only_routed_memories_change(name: str) -> None:
    memory = encoder(name, layers=1)
    assert isinstance(memory, MemoryStack)
    layer = memory.blocks[0].layer
    assert isinstance(layer, MoMLayer | SSELayer)
    _, state = layer(torch.randn(4, 9, 16), layer.initial(4))
    before = state["memory"].clone().unflatten(1, (5, 2))
    x = torch.randn(4, 16)
    layer.step(x, state)
    changed = (state["memory"].unflatten(1, (5, 2)) != before).flatten(2).any(-1)
    best = layer.router(x).topk(layer.selected).indices
    expected = torch.zeros(4, 5, dtype=torch.bool).scatter(1, best, value=True)
    expected[:, -1] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("updates", [1, 3])
def test_a_hopfield_layer_retrieves_from_learned_patterns_alone(updates: int) -> None:
    """Ramsauer et al. 2021, section 3, one state pattern and head at a time."""
    g = torch.Generator().manual_seed(0)
    config = HopfieldConfig(width=8, heads=2, form="layer", patterns=5, updates=updates, beta=1.5)
    layer = LearnedPatternsLayer(config, g)
    x = torch.randn(2, 3, 8, generator=g)
    o, state = layer(x, layer.initial(2))
    assert state == {}
    normed = torch.nn.functional.layer_norm(layer.learned, (8,))
    keys, values = (half.unflatten(-1, (2, 4)) for half in layer.stored(normed).chunk(2, -1))
    for b, t in itertools.product(range(2), range(3)):
        found = []
        for h in range(2):
            xi = layer.state(torch.nn.functional.layer_norm(x[b, t], (8,)))[4 * h : 4 * h + 4]
            for _ in range(updates):
                p = (1.5 * keys[:, h] @ xi).softmax(0)
                xi = p @ keys[:, h]
            found.append(p @ values[:, h])
        torch.testing.assert_close(o[b, t], layer.out(torch.cat(found)), rtol=1e-5, atol=1e-6)


def test_only_the_largest_keys_rows_change() -> None:
    """Of the fixed partition and of the chosen one: the others neither are written nor decay."""
    memory = encoder("sse", layers=1, rows=3)
    assert isinstance(memory, MemoryStack)
    layer = memory.blocks[0].layer
    assert isinstance(layer, SSELayer)
    _, state = layer(torch.randn(4, 9, 16), layer.initial(4))
    before = state["memory"].clone().unflatten(1, (5, 2))
    x = torch.randn(4, 16)
    layer.step(x, state)
    changed = (state["memory"].unflatten(1, (5, 2)) != before).any(-1)
    k = layer.project(x).chunk(3, -1)[1]
    sparse_k = k + layer.difference(x).chunk(2, -1)[1]
    assert torch.equal(changed[:, -1], largest(k.unflatten(-1, (2, 8)), 3) > 0)
    best = layer.router(x).argmax(-1)
    part = changed[torch.arange(4), best]
    assert torch.equal(part, largest(sparse_k.unflatten(-1, (2, 8)), 3) > 0)


def test_places_of_packed_steps() -> None:
    active = torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    place, counts = packing(active)
    assert place.tolist() == [[3, 0, 1, 4, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    assert counts.tolist() == [[3], [0], [5]]


def test_balance_is_k_when_even_and_n_when_one_memory_does_all() -> None:
    even, chosen = route(torch.eye(4), 1)
    torch.testing.assert_close(balance_loss(even, chosen), torch.tensor(1.0))
    one, chosen = route(torch.tensor([[50.0, 0, 0, 0]]).expand(6, 4), 1)
    torch.testing.assert_close(balance_loss(one, chosen), torch.tensor(4.0))
    pairs = torch.tensor([[2.0, 2, 0, 0], [0, 2, 2, 0], [0, 0, 2, 2], [2, 0, 0, 2]])
    shares, chosen = route(pairs, 2)
    for weights in (shares, renormalised(shares, chosen)):
        torch.testing.assert_close(balance_loss(weights, chosen), torch.tensor(2.0))


def test_moms_balance_is_over_the_chosen_alone() -> None:
    """By hand: two steps with weights 3/4 and 1/4, on memories 0 and 1, and on 1 and 2."""
    log3 = torch.tensor(3.0).log().item()
    shares, chosen = route(torch.tensor([[[log3, 0, -1, -5], [-2, 0, -log3, -9]]]), 2)
    weights = renormalised(shares, chosen)
    torch.testing.assert_close(weights[0, 0], torch.tensor([0.75, 0.25, 0, 0]))
    # f = (1/2, 1, 1/2, 0) and p = (3/8, 1/8 + 3/8, 1/8, 0).
    expected = 4 * (0.5 * 0.375 + 1 * 0.5 + 0.5 * 0.125)
    torch.testing.assert_close(balance_loss(weights, chosen), torch.tensor(expected))


def test_the_least_of_moms_balance() -> None:
    """The even load is not it: memory 0 is always second, without weight, the others are even.

    N/(N − k + 1) bounds it, for p_i ≤ f_i ≤ 1: checked against every load of a few steps.
    """
    shares, chosen = route(torch.tensor([[0.0, 40, -40], [0, -40, 40]]), 2)
    loss = balance_loss(renormalised(shares, chosen), chosen)
    torch.testing.assert_close(loss, torch.tensor(3 / (3 - 2 + 1)))
    rows = list(itertools.product((0.0, 3.0, 40.0), repeat=3))
    loads = torch.tensor(list(itertools.product(rows, repeat=2)))
    shares, chosen = route(loads, 2)
    weights = renormalised(shares, chosen)
    losses = torch.stack([balance_loss(w, c) for w, c in zip(weights, chosen, strict=True)])
    assert 1.5 - 1e-5 < losses.min() < losses.max() < 3 + 1e-5


def test_routing_losses_are_those_of_the_latest_encode() -> None:
    memory = encoder("mom", balance=0.5)
    memory.encode(tokens())
    assert 1 <= memory.auxiliary_loss().item() < 2, "about k = 2 times 0.5, at most N = 4"
    assert encoder("gru").auxiliary_loss() == 0


@pytest.mark.parametrize("name", ["mom", "sse"])
def test_routing_loss_is_that_of_every_layers_choices(name: str) -> None:
    """N Σ f p of each layer by hand, from what its router said; its gradient too.

    MoM's p is of the chosen alone and each sequence counts by itself, as in its authors' program.
    """
    memory = encoder(name, balance=0.5, layers=3)
    assert isinstance(memory, MemoryStack)
    routers = [block.layer.get_submodule("router") for block in memory.blocks]
    said: list[Tensor] = []
    for router in routers:
        router.register_forward_hook(lambda _, __, scores: said.append(scores))
    memory.encode(tokens(2))  # only the latest counts
    said.clear()
    memory.encode(tokens())
    losses = []
    for scores in said:
        for sequence in scores if name == "mom" else [scores.flatten(0, 1)]:
            best, chosen = sequence.topk(memory.blocks[0].layer.selected)
            p = sequence.softmax(-1)
            if name == "mom":
                p = torch.zeros_like(sequence).scatter(1, chosen, best.softmax(-1))
            f = chosen.flatten().bincount(minlength=p.shape[1]) / len(sequence)
            losses.append(0.5 * p.shape[1] * (f * p.mean(0)).sum())
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(memory.auxiliary_loss(), expected)
    weights = [router.weight for router in routers]
    got = torch.autograd.grad(memory.auxiliary_loss(), weights, retain_graph=True)
    torch.testing.assert_close(got, torch.autograd.grad(expected, weights))


def test_titans_context_goes_on_from_different_places_of_a_segment() -> None:
    memory, x = encoder("titans_mac", window=4), tokens(4, 12)
    _, early = memory.encode(x[:2, :3])
    _, late = memory.encode(x[2:, :5])
    both = {name: torch.cat([value, late[name]]) for name, value in early.items()}
    rest = torch.cat([x[:2, 3:10], x[2:, 5:12]])
    contexts, _ = memory.encode(rest, both)
    whole, _ = memory.encode(x)
    expected = torch.cat([whole[:2, 3:10], whole[2:, 5:12]])
    torch.testing.assert_close(contexts, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["titans_mac", "titans_mag", "titans_mal"])
def test_persistent_tokens_are_seen_by_every_step(name: str) -> None:
    memory, x = encoder(name, window=4), tokens()
    before = memory.encode(x)[0]
    with torch.no_grad():
        for own, parameter in memory.named_parameters():
            if own.endswith("persistent"):
                parameter.add_(1.0)
    moved = (memory.encode(x)[0] - before).abs().amax((0, 2))
    assert (moved > 1e-4).all()


@pytest.mark.parametrize("name", ["gru", "transformer", "gated_deltanet", "sse", "titans_mag"])
def test_a_hidden_constant_is_inferred(name: str) -> None:
    """c ~ N(0, 1) behind unit noise: the best guess from one token errs by 1/2, from 24 by 1/25."""
    g = torch.Generator().manual_seed(0)
    memory = encoder(name, context=4)
    readout = torch.nn.Linear(4, 1)
    optimiser = torch.optim.Adam([*memory.parameters(), *readout.parameters()], 5e-3)
    errors = []
    for _ in range(90):
        hidden = torch.randn(32, 1, 1, generator=g)
        x = torch.randn(32, 24, INPUTS, generator=g)
        x[..., :1] += hidden
        contexts, _ = memory.encode(x)
        square = (readout(contexts) - hidden).square()
        (square.mean() + memory.auxiliary_loss()).backward()
        optimiser.step()
        optimiser.zero_grad()
        errors.append(square[:, -1].mean().item())
    assert sum(errors[-20:]) / 20 < 0.2


@pytest.mark.gpu
@every
def test_a_captured_step_on_cuda_equals_encode_on_the_cpu(case: str) -> None:
    memory, x = of(case), tokens(3, 40)
    expected = memory.encode(x)[0].detach()
    memory, x = memory.cuda(), x.cuda()
    contexts, _ = memory.encode(x)
    torch.testing.assert_close(contexts.cpu(), expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        state = memory.initial(3)
    captured = CapturedFunction(lambda token: (memory.step(state, token)["context"],))
    for t in range(x.shape[1]):
        context = captured(x[:, t])[0]
        torch.testing.assert_close(context, contexts[:, t], rtol=1e-4, atol=1e-4)
    assert captured._graph is not None


@pytest.mark.gpu
@learned
def test_gradients_on_cuda_are_those_on_the_cpu(case: str) -> None:
    memory, x = of(case), tokens(4, 24)
    (memory.encode(x)[0].square().sum() + memory.auxiliary_loss()).backward()
    expected = {name: p.grad for name, p in memory.named_parameters()}
    memory = of(case).cuda()
    (memory.encode(x.cuda())[0].square().sum() + memory.auxiliary_loss()).backward()
    for name, parameter in memory.named_parameters():
        assert parameter.grad is not None
        reference = expected[name]
        assert reference is not None
        error = (parameter.grad.cpu() - reference).norm() / reference.norm()
        assert error < 1e-2, name
