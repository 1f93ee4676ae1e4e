"""The rollout kernel against the definition in float64: on a GPU, or in Triton's interpreter."""

import importlib
import itertools
import warnings
from dataclasses import replace

import pytest
import torch
from rollout_cases import (
    random_gaussian_layers,
    random_layers,
    random_start,
    relative_error,
    step_by_step,
)

from hypercrl_kernels import pack_layers, rollout

LIMITS = {"bf16": 0.03, "tf32x3": 1e-5, "ieee": 1e-5}


def launcher():
    from hypercrl_kernels.planning import rollout_launch

    return rollout_launch


def check(device, sizes, robots, samples, horizon, precision, own=False, sampled=False, **cut):
    """Compare one launch, cut as the library chooses but for `cut`."""
    launch = launcher()
    make = random_gaussian_layers if sampled else random_layers
    layers = make(sizes, robots if own else None, torch.float32, device=device)
    state, controls = random_start(robots, samples, horizon, sizes, device=device)
    noise = torch.randn(robots, samples, horizon, sizes[-1]).to(device) if sampled else None
    packed = pack_layers(layers, precision)
    chosen = launch.choose_launch(packed, robots * samples, sampled=sampled)
    got = launch.launch_rollout(packed, state, controls, noise, replace(chosen, **cut))
    assert got.shape == (robots, samples, horizon + 1, sizes[-1])
    assert torch.equal(got[:, :, 0], state[:, None].expand(-1, samples, -1))
    error = relative_error(got, step_by_step(layers, state, controls, noise))
    assert error < LIMITS[precision], f"{precision}: {error:.1e}"


@pytest.mark.parametrize("precision", ["bf16", "tf32x3", "ieee"])
@pytest.mark.parametrize("sizes", [[6, 7, 4], [5, 33, 20, 3], [4, 20, 40, 33, 3]])
def test_odd_widths_and_depths(device, sizes, precision):
    check(device, sizes, 1, 21, 3, precision)


@pytest.mark.parametrize("precision", ["bf16", "tf32x3"])
def test_four_hidden_layers_of_200(device, precision):
    check(device, [9, 200, 200, 200, 200, 6], 1, 3, 2, precision)


def test_inputs_beyond_a_power_of_two(device):
    check(device, [33, 16, 26], 1, 3, 2, "tf32x3")
    check(device, [100, 16, 80], 1, 3, 2, "bf16")


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "tf32x3"])
def test_robots_with_shared_and_with_own_weights(device, own, precision):
    check(device, [5, 20, 17, 3], 3, 19, 3, precision, own)


@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("registers", [0, 1])
def test_the_shortest_horizons(device, horizon, sampled, registers):
    check(device, [4, 16, 16, 3], 1, 5, horizon, "bf16", sampled=sampled, registers=registers)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "tf32x3"])
@pytest.mark.parametrize("sizes", [[5, 20, 17, 3], [24, 40, 33, 17, 18]])
def test_sampled_next_states(device, sizes, precision, own):
    check(device, sizes, 2, 19, 3, precision, own, sampled=True)


@pytest.mark.parametrize(
    "cut",
    [
        {"registers": 0, "shared": 0, "chunks": 1},
        {"registers": 0, "shared": 0, "chunks": 2},
        {"registers": 0, "shared": 0, "chunks": 0, "block": 16},
        {"registers": 0, "shared": 1, "chunks": 1},
        {"registers": 1, "shared": 0, "chunks": 2},
        {"registers": 1, "shared": 1, "chunks": 1},
        {"registers": 0, "shared": 3},
        {"groups": 0},
        {"groups": 1},
        {"groups": 4},
        {"ends": False},
        {"ends": False, "registers": 1, "shared": 1},
        {"tile": 8},
        {"tile": 32},
    ],
)
@pytest.mark.parametrize("sampled", [False, True])
def test_every_place_of_the_weights_gives_the_same(device, cut, sampled):
    check(device, [5, 60, 50, 64, 40, 3], 2, 17, 2, "bf16", own=True, sampled=sampled, **cut)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("sizes", [[6, 7, 4], [12, 60, 50, 10], [24, 20, 33, 17, 40, 18]])
def test_particles_as_rows(device, sizes, own):
    from hypercrl_kernels.planning.rows_launch import launch_rows

    layers = random_layers(sizes, 2 if own else None, torch.float32, device=device)
    state, controls = random_start(2, 140, 3, sizes, device=device)
    got = launch_rows(pack_layers(layers), state, controls)
    assert torch.equal(got[:, :, 0], state[:, None].expand(-1, 140, -1))
    error = relative_error(got, step_by_step(layers, state, controls))
    assert error < LIMITS["bf16"], f"{error:.1e}"


def test_many_particles_are_rows_where_the_weights_fit():
    from hypercrl_kernels.planning.rows_launch import takes_rows

    hopper = (132, 232448)
    push = pack_layers(random_layers([12, 200, 200, 10], None, torch.float32))
    assert [takes_rows(push, robots, 500, *hopper) for robots in (1, 8, 9, 64)] == [False] * 2 + [
        True
    ] * 2
    assert not takes_rows(push, 777, 20, *hopper)
    assert not takes_rows(push, 64, 500, 132, 100_000)
    deep = pack_layers(random_layers([24, 200, 200, 200, 200, 18], None, torch.float32))
    assert not takes_rows(deep, 64, 500, *hopper)
    exact = pack_layers(random_layers([12, 200, 200, 10], None, torch.float32), "tf32x3")
    assert not takes_rows(exact, 64, 500, *hopper)


def test_fragments_of_two_repeats(device):
    """A warp of a wide matrix holds rows of its upper and of its lower half."""
    for chunks in (1, 2):
        check(device, [9, 200, 256, 256, 6], 1, 3, 2, "bf16", registers=1, chunks=chunks)


def test_fragments_are_the_operand_of_a_matrix_instruction():
    """Each thread's eight numbers, by the PTX manual's formulas for m64nNk16."""
    layers = random_layers([5, 256, 250, 3], None, torch.float32)
    packed = pack_layers(layers)
    loaded = packed.fragments.view(torch.bfloat16).view(16, 2, 8, 32, 8)  # k, repeat, warp, lane
    for k, repeat, warp, lane, i in itertools.product(
        (0, 7, 15), range(2), (0, 5), (0, 13, 31), range(8)
    ):
        row = 128 * repeat + 16 * warp + lane // 4 + 8 * (i // 2 % 2)
        column = 16 * k + 2 * (lane % 4) + i % 2 + 8 * (i // 4)
        assert loaded[k, repeat, warp, lane, i] == packed.hidden[0, 0, row, column]


def test_matrices_are_not_kept_beside_ones_that_pass_through_shared_memory():
    packed = pack_layers(random_layers([24, 200, 200, 200, 200, 18], None, torch.float32))
    chosen = launcher().choose_launch(packed, 500)
    assert chosen.registers + chosen.shared < packed.matrices
    with pytest.raises(ValueError, match="kept only where the others are loaded as fragments"):
        replace(chosen, shared=1, chunks=0)


def test_a_large_offset_of_the_state_costs_no_precision(device):
    """bf16 keeps three digits: of the way moved, not of the position in the room."""
    sizes = [5, 32, 32, 3]
    layers = random_layers(sizes, None, torch.float32, device=device)
    state, controls = random_start(1, 9, 3, sizes, device=device)
    far = state + 300.0
    first, offset = layers[0]
    layers[0] = (first, offset - 300.0 * first[:, :3].sum(1))
    got = launcher().launch_rollout(pack_layers(layers), far, controls)
    assert relative_error(got, step_by_step(layers, far, controls)) < LIMITS["bf16"]


def test_packing_in_place_replaces_every_number(device):
    sizes = [5, 20, 30, 3]
    old = random_layers(sizes, None, torch.float32, seed=0, device=device)
    new = random_layers(sizes, None, torch.float32, seed=1, device=device)
    packed = pack_layers(old)
    assert pack_layers(new, out=packed) is packed
    state, controls = random_start(2, 6, 3, sizes, device=device)
    launch = launcher().launch_rollout
    assert torch.equal(launch(packed, state, controls), launch(pack_layers(new), state, controls))


def test_a_packed_network_knows_its_shape():
    packed = pack_layers(random_layers([5, 20, 30, 3], 2, torch.float32))
    state, controls = random_start(2, 6, 3, [5, 3])
    with pytest.raises(ValueError, match="one network or one per robot"):
        rollout(packed, state.repeat(2, 1)[:3], controls.repeat(2, 1, 1, 1)[:3])
    with pytest.raises(ValueError, match="only from layers with a log-variance"):
        rollout(packed, state, controls, noise=torch.zeros(2, 6, 3, 3))
    with pytest.raises(ValueError, match="rollout needs a network from 6 inputs"):
        rollout(packed, state, torch.zeros(2, 6, 3, 3))
    with pytest.raises(ValueError, match="differ in whether they have a log-variance"):
        pack_layers(random_gaussian_layers([5, 20, 30, 3], 2, torch.float32), out=packed)
    with pytest.raises(ValueError, match=r"pack 1 of sizes \(5, 20, 3\) in bf16 into a new one"):
        pack_layers(random_layers([5, 20, 3], None, torch.float32), out=packed)


@pytest.mark.parametrize(
    ("sizes", "dtype", "reason"),
    [
        ([5, 3], torch.float32, "no hidden layer"),
        ([5, 513, 3], torch.float32, "wider than 512"),
        ([5, 8, 3], torch.float64, "float64"),
        ([140, 8, 3], torch.float32, "more than 128 inputs"),
    ],
)
def test_what_the_kernel_does_not_take_is_named(sizes, dtype, reason):
    with pytest.raises(ValueError, match=reason):
        pack_layers(random_layers(sizes, None, dtype))


def test_launches_fill_the_device_before_tiles_grow():
    packed = pack_layers(random_layers([12, 200, 200, 10], None, torch.float32))

    def tiles(packed):
        return [launcher().choose_launch(packed, n).tile for n in (1, 1056, 1057, 2113, 32000)]

    assert tiles(packed) == [8, 8, 16, 32, 64]
    exact = pack_layers(random_layers([12, 200, 200, 10], None, torch.float32), "tf32x3")
    assert tiles(exact) == [16, 16, 16, 32, 32]
    wide = pack_layers(random_layers([12, 300, 300, 10], None, torch.float32))
    assert tiles(wide) == [16, 16, 16, 32, 32]


@pytest.mark.parametrize(
    ("hidden", "particles", "wanted"),
    [
        ([200] * 2, 500, (8, 1, 0, 4)),
        ([200] * 2, 2000, (16, 1, 0, 1)),
        ([200] * 2, 4000, (32, 0, 1, 1)),
        ([200] * 4, 500, (8, 0, 0, 4)),
        ([200] * 4, 2000, (16, 0, 0, 0)),
        ([200] * 4, 4000, (32, 0, 1, 0)),
        ([100] * 2, 500, (8, 1, 0, 2)),
        ([10], 500, (8, 0, 0, 1)),
    ],
)
def test_where_the_weights_are(hidden, particles, wanted):
    """What was fastest on an H200 at widths of 200."""
    packed = pack_layers(random_layers([12, *hidden, 10], None, torch.float32))
    chosen = launcher().choose_launch(packed, particles)
    assert (chosen.tile, chosen.registers, chosen.shared, chosen.groups) == wanted


def test_a_notice_is_given_once():
    # The function of the same name hides the module.
    notice = importlib.import_module("hypercrl_kernels.planning.rollout")._notice
    notice.cache_clear()
    with pytest.warns(UserWarning, match="torch operations instead of one kernel: because"):
        notice("because")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notice("because")
