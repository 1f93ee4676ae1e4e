"""Every memory encoder keeps the contract of hypercrl.memory.base, and does what its paper says."""

import pytest
import torch
from torch import Tensor

from hypercrl.memory import MEMORIES, MemoryConfig, MemoryEncoder, make_memory

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
    "hybrid": {"layers": 4, "window": 4},
    "hybrid-hgrn": {"layers": 6, "window": 20, "linear": "hgrn", "ratio": 2},
}
every = pytest.mark.parametrize("case", CASES)
learned = pytest.mark.parametrize("case", [case for case in CASES if case != "none"])


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
