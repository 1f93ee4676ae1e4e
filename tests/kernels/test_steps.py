"""Steps of what lies around a memory, and of attention, against their equations in float64.

Each by torch operations and by its kernel: on a GPU, or interpreted.
"""

from functools import partial
from importlib import import_module
from typing import Any

import pytest
import torch
from memory_cases import CASES, make, relative
from torch import Tensor

from hypercrl_kernels import (
    attention_step,
    convolution_step,
    hopfield_retrieval,
    linear_step,
    memory_step,
)


@pytest.fixture(params=["torch", "kernel"])
def by(request: pytest.FixtureRequest, device: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Float32 steps by torch operations on a CPU, or by kernels; the device they are to run on."""

    def chosen(_: str, *state: Tensor) -> bool:
        return request.param == "kernel" and state[0].dtype == torch.float32

    for name in ("api", "layers", "attention"):
        module = import_module(f"hypercrl_kernels.memory.steps.{name}")
        monkeypatch.setattr(module, "step_as_kernel", chosen)
    return device if request.param == "kernel" else "cpu"


def normal(seed: int):
    return partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def single(x: Tensor, device: str) -> Tensor:
    return x.to(device, torch.float32 if x.is_floating_point() else x.dtype)


@pytest.mark.parametrize(("width", "part", "outputs"), [(64, 64, 256), (30, 10, 11), (5, 5, 1)])
@pytest.mark.parametrize(
    "given", [(), ("bias",), ("norm",), ("gate", "residual"), ("bias", "norm", "gate", "residual")]
)
def test_linear_step(by: str, width: int, part: int, outputs: int, given: tuple[str, ...]) -> None:
    randn = normal(0)
    # x and gate lie side by side, as two halves of one projection do
    x, gate = randn(3, 2 * width).chunk(2, -1)
    weight = randn(outputs, width)
    every = {
        "bias": randn(outputs),
        "norm": randn(part),
        "gate": gate,
        "residual": randn(3, outputs),
    }
    options = {name: every[name] for name in given}
    wanted = torch.zeros(3, outputs, dtype=torch.float64)
    for b in range(3):
        entry = x[b].clone()
        if "norm" in given:
            for at in range(0, width, part):
                mean = x[b, at : at + part].square().mean() + torch.finfo(torch.float32).eps
                entry[at : at + part] = x[b, at : at + part] / mean.sqrt() * every["norm"]
        if "gate" in given:
            entry = entry * gate[b] / (1 + (-gate[b]).exp())
        wanted[b] = weight @ entry
    for name in ("bias", "residual"):
        wanted += options.get(name, 0)
    halves = single(torch.cat([x, gate], -1), by).chunk(2, -1)
    options = {name: single(value, by) for name, value in options.items()}
    if "gate" in given:
        options["gate"] = halves[1]
    got = linear_step(halves[0], single(weight, by), **options)
    assert relative(got, wanted) < 2e-6


def test_strides_do_not_matter(by: str) -> None:
    randn = normal(4)

    def strided(x: Tensor) -> Tensor:
        return torch.stack([x, x], -1)[..., 0]

    found = []
    given = {
        "x": randn(3, 8), "bias": randn(5), "norm": randn(4), "gate": randn(3, 8),
        "residual": randn(3, 5), "q": randn(3, 2, 4), "key": randn(3, 1, 2, 4),
        "value": randn(3, 1, 2, 4), "rates": randn(2).abs(), "persistent": randn(2, 3, 2, 4),
        "seen": torch.tensor([0, 2, 7]),
    }  # fmt: skip
    weight, kept = single(randn(5, 8), by), single(randn(2, 3, 4, 2, 4), by)
    taps, before = randn(4, 8), single(randn(3, 3, 8), by)
    for layout in (lambda x: x, strided):
        own = {name: layout(single(value.clone(), by)) for name, value in given.items()}
        keys, values = kept.clone()
        affine = [own.pop(name) for name in ("x", "bias")]
        options = {name: own.pop(name) for name in ("norm", "gate", "residual")}
        found.append(
            (
                linear_step(affine[0], weight, affine[1], **options),
                convolution_step(affine[0], layout(single(taps, by)), before=before.clone()),
                attention_step(**own, keys=keys, values=values),
                own["seen"],
            )
        )
    torch.testing.assert_close(found[1], found[0])


@pytest.mark.parametrize(("width", "taps"), [(192, 4), (5, 3), (300, 1)])
def test_convolution_step(by: str, width: int, taps: int) -> None:
    randn = normal(0)
    x, weight = randn(7, 2, width), randn(taps, width)
    before = torch.zeros(2, taps - 1, width, device=by)
    for t in range(7):
        lags = range(min(taps, t + 1))
        mixed = torch.stack([weight[-1 - lag] * x[t - lag] for lag in lags]).sum(0)
        got = convolution_step(single(x[t], by), single(weight, by), before=before)
        assert relative(got, mixed * mixed.sigmoid()) < 2e-6
    last = x[7 - taps + 1 :].transpose(0, 1)
    assert torch.equal(before, single(last, by))


def turned(x: Tensor, position: int, rates: Tensor) -> Tensor:
    """Pairs of channels of x [H, K] by rotation matrices."""
    x = x.clone()
    for i, rate in enumerate(rates):
        # as the kernel rounds it: a rounding of the angle grows with the position
        angle = (rate.float() * position).double()
        a, b = x[:, 2 * i].clone(), x[:, 2 * i + 1].clone()
        x[:, 2 * i] = a * angle.cos() - b * angle.sin()
        x[:, 2 * i + 1] = a * angle.sin() + b * angle.cos()
    return x


ATTENTION: dict[str, dict[str, Any]] = {
    "a window": {"window": 4, "rates": True},
    "the default window": {"window": 256, "keys": 32, "values": 32, "rates": True, "steps": 3},
    "several blocks of patterns": {"window": 300, "keys": 64, "values": 33, "steps": 3},
    "not turned": {"window": 5, "keys": 5, "values": 7, "updates": 3, "beta": 0.7},
    "persistent patterns": {"window": 3, "persistent": 3, "rates": True},
    "persistent patterns, updates": {"window": 3, "persistent": 5, "updates": 2},
    "segments of pairs": {
        "window": 3, "entries": 2, "segments": True, "persistent": 2, "rates": True
    },
    "a window of triples": {"window": 2, "entries": 3},
    "nothing but now": {"window": 1, "rates": True},
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_step(by: str, name: str) -> None:
    case: dict[str, Any] = {
        "entries": 1,
        "keys": 6,
        "values": 6,
        "segments": False,
        "steps": 8,
        **ATTENTION[name],
    }
    randn, batch, heads, width = normal(1), 2, 2, case["keys"]
    rates = randn(width // 2).abs() if case.get("rates") else None
    persistent = randn(2, case["persistent"], heads, width) if "persistent" in case else None
    options: dict[str, Any] = {"updates": case.get("updates", 1), "beta": case.get("beta")}
    factor = options["beta"] or width**-0.5
    slots = case["window"] * case["entries"]
    # Slots that are not filled hold what must not be seen.
    state = {
        "keys": torch.full((batch, slots, heads, width), 1e3, device=by),
        "values": torch.full((batch, slots, heads, case["values"]), 1e3, device=by),
        "seen": torch.zeros(batch, dtype=torch.long, device=by),
    }
    places = {key: value.data_ptr() for key, value in state.items()}
    history: list[tuple[Tensor, Tensor]] = []
    for t in range(case["steps"]):
        q = randn(batch, heads, width)
        both = randn(batch, case["entries"], heads, width + case["values"])
        key, value = both.split([width, case["values"]], -1)
        position = t % case["window"] if case["segments"] else t
        if case["segments"] and position == 0:
            history.clear()
        now = key if rates is None else torch.stack(
            [torch.stack([turned(k, position, rates) for k in own]) for own in key]
        )  # fmt: skip
        history = [*history, (now, value)][-case["window"] :]
        every_key, every_value = (torch.cat(parts, 1) for parts in zip(*history, strict=True))
        wanted = torch.zeros(batch, heads, case["values"], dtype=torch.float64)
        for b in range(batch):
            patterns = q[b] if rates is None else turned(q[b], position, rates)
            for h in range(heads):
                stored, content = every_key[b, :, h], every_value[b, :, h]
                if persistent is not None:
                    stored = torch.cat([persistent[0, :, h], stored])
                    content = torch.cat([persistent[1, :, h], content])
                pattern = patterns[h]
                for _ in range(options["updates"] - 1):
                    pattern = (factor * stored @ pattern).softmax(0) @ stored
                wanted[b, h] = (factor * stored @ pattern).softmax(0) @ content
        got = attention_step(
            single(q, by),
            *single(both, by).split([width, case["values"]], -1),
            **state,
            **options,
            rates=None if rates is None else single(rates, by),
            persistent=None if persistent is None else single(persistent, by),
            segments=case["segments"],
        )
        assert relative(got, wanted) < 1e-5, t
    assert state["seen"].tolist() == [case["steps"]] * batch
    assert {key: value.data_ptr() for key, value in state.items()} == places


def test_robots_at_different_steps_see_each_its_own(by: str) -> None:
    randn = normal(2)
    rates = single(randn(2).abs(), by)
    shape = (3, 4, 2, 4)
    together = [torch.zeros(shape, device=by) for _ in range(2)]
    seen = torch.tensor([0, 2, 7], device=by)
    alone = [(k.clone(), v.clone(), s.clone()) for k, v, s in zip(*together, seen, strict=True)]
    for _ in range(5):
        q, key, value = (single(randn(3, *s, 2, 4), by) for s in ((), (1,), (1,)))
        state = {"keys": together[0], "values": together[1], "seen": seen}
        got = attention_step(q, key, value, **state, rates=rates)
        for i, (k, v, s) in enumerate(alone):
            own = {"keys": k[None], "values": v[None], "seen": s[None]}
            wanted = attention_step(
                q[i : i + 1], key[i : i + 1], value[i : i + 1], **own, rates=rates
            )
            torch.testing.assert_close(got[i : i + 1], wanted)
    assert seen.tolist() == [5, 7, 12]


@pytest.mark.parametrize("name", ["gated DeltaNet", "Titans", "linear attention"])
def test_keys_are_brought_to_length_1(by: str, name: str) -> None:
    """Of any length, and of none: a zero key writes nothing."""
    x: dict[str, Any]
    x, (state,) = make(CASES[name], 3, 1, keys=20, values=18)
    x = {gate: value[:, 0] for gate, value in x.items()}
    x["k"][1] = 0.0
    errors = {"gated DeltaNet": "after_decay", "Titans": "before_decay"}
    options: dict[str, Any] = {"error": errors.get(name, "none")}
    length = {key: x[key].norm(dim=-1, keepdim=True).clamp_min(1e-6) for key in "qk"}
    of_unit_length = {key: x[key] / length[key] for key in "qk"}
    exact = state.clone()
    wanted = memory_step(**{**x, **of_unit_length}, state=exact, **options)
    x = {key: single(value, by) for key, value in x.items()}
    x["q"], x["k"] = 30 * x["q"], 0.1 * x["k"]
    state = single(state, by)
    got = memory_step(**x, state=state, unit_keys=True, **options)
    assert relative(got, wanted) < 1e-5
    assert relative(state, exact) < 2e-6


@pytest.mark.parametrize("masked", [False, True])
def test_persistent_patterns_are_stored_ones_that_are_never_hidden(masked: bool) -> None:
    randn = normal(3)
    query, stored, values = randn(2, 4, 2, 3), randn(2, 6, 2, 3), randn(2, 6, 2, 3)
    persistent = randn(2, 5, 2, 3)
    mask = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0)) < 0.5
    seen = torch.cat([torch.ones(2, 4, 5, dtype=torch.bool), mask], -1)
    first, second = (part.expand(2, -1, -1, -1) for part in persistent)
    wanted = hopfield_retrieval(
        query,
        torch.cat([first, stored], 1),
        torch.cat([second, values], 1),
        mask=seen if masked else None,
    )
    got = hopfield_retrieval(
        query, stored, values, mask=mask if masked else None, persistent=persistent
    )
    torch.testing.assert_close(got, wanted)


ONES = torch.ones
MISTAKES = {
    r"weight \[N=4, D=3\]": lambda: linear_step(ONES(1, 3), ONES(4, 2)),
    r"gate \[B=1, D=3\]": lambda: linear_step(ONES(1, 3), ONES(4, 3), gate=ONES(1, 4)),
    "a divisor of D=3": lambda: linear_step(ONES(1, 3), ONES(4, 3), norm=ONES(2)),
    r"before \[B=1, M=2, D=3\]": lambda: convolution_step(
        ONES(1, 3), ONES(3, 3), before=ONES(1, 3, 3)
    ),
    r"values \[B=1, S=4, H=2, V=3\]": lambda: attend(values=ONES(1, 5, 2, 3)),
    "whole steps of 3": lambda: attend(key=ONES(1, 3, 2, 3), value=ONES(1, 3, 2, 3)),
    "at least 1 update": lambda: attend(updates=0),
    r"rates \[K / 2\], here K=3": lambda: attend(rates=ONES(1)),
    r"persistent \[2=2, P, H=2, K=3\]": lambda: attend(persistent=ONES(2, 1, 2, 5)),
}


def attend(**changed: object) -> Tensor:
    arguments = {
        "q": ONES(1, 2, 3),
        **{name: ONES(1, 1, 2, 3) for name in ("key", "value")},
        **{name: ONES(1, 4, 2, 3) for name in ("keys", "values")},
        "seen": torch.zeros(1, dtype=torch.long),
    }
    return attention_step(**{**arguments, **changed})


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MISTAKES[message]()
