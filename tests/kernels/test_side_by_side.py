"""Pieces of work on cores of their own: order, threads, failures; and rollouts cut into pieces."""

import threading
from functools import partial

import pytest
import torch

from hypercrl_kernels import GaussianLayers, cores_apart, rollout
from hypercrl_kernels.planning import rollout_reference
from hypercrl_kernels.side_by_side import cores, side_by_side


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_the_order_of_the_calls(threads, count):
    with cores_apart():
        assert cores() == threads
        found = side_by_side([partial(pow, number, 2) for number in range(count)])
    assert found == [number**2 for number in range(count)]
    assert cores() == 1
    assert torch.get_num_threads() == threads


def test_each_piece_has_one_thread_of_torch_and_records_no_gradient(threads):
    def look():
        return threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    with cores_apart():
        found = side_by_side([look] * 6)
    assert {seen[1:] for seen in found} == {(1, False)} if threads > 1 else True
    assert len({seen[0] for seen in found}) <= threads


def test_a_failure_is_raised_and_ends_nothing_else(threads):
    def fail():
        raise ArithmeticError("of the second")

    with pytest.raises(ArithmeticError, match="of the second"), cores_apart():
        side_by_side([int, fail, int])
    assert torch.get_num_threads() == threads
    with cores_apart():
        assert side_by_side([int, int]) == [0, 0]


def layers(robots, gaussian, seed=0):
    g = torch.Generator().manual_seed(seed)
    lead = () if robots is None else (robots,)
    sizes = [(6, 40), (40, 40), (40, 4)]
    made = [
        (torch.randn(*lead, b, a, generator=g) / a**0.5, torch.randn(*lead, b, generator=g) / 10)
        for a, b in sizes
    ]
    if not gaussian:
        return made
    bounds = torch.tensor([[1e-4] * 4, [1.0] * 4, [0.1] * 4])
    return GaussianLayers(made, made[-1], bounds)


@pytest.mark.parametrize("own_networks", [False, True])
@pytest.mark.parametrize("gaussian", [False, True])
def test_a_rollout_is_the_same_in_pieces(monkeypatch, threads, own_networks, gaussian):
    """But for the rounding of products of other sizes; pieces of 67 particles at most."""
    monkeypatch.setattr(rollout_reference, "FEWEST_ROWS", 10)
    network = layers(3 if own_networks else None, gaussian)
    g = torch.Generator().manual_seed(1)
    state, controls = torch.randn(3, 4, generator=g), torch.rand(3, 67, 5, 2, generator=g)
    noise = torch.randn(3, 67, 5, 4, generator=g) if gaussian else None
    whole = rollout(network, state, controls, noise=noise)
    with cores_apart():
        pieces = rollout(network, state, controls, noise=noise)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(pieces[:, :, 0], state[:, None].expand(-1, 67, -1))
