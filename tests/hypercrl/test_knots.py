"""Searches through knots, and samples over the whole action range beside those of the planner."""

import numpy as np
import pytest
import torch

from hypercrl.planning import PLANNERS, make_planner
from hypercrl.planning.knots import INTERPOLATIONS, interpolation_matrix

OF_SEQUENCES = [name for name, (kind, _) in PLANNERS.items() if not kind.follows]

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])
WITH_SCIPY = pytest.mark.extra("scipy")
BESIDE_ORACLES = ["linear", pytest.param("cubic", marks=WITH_SCIPY)]
"""Interpolations whose truth `through` knows: NumPy comes with the package, SciPy does not."""
EVERY_THIRD = [0, 3, 6, 9]
"""Steps of four knots in a horizon of ten."""


def planner(name="cem", **settings):
    settings = {"samples": 60, "horizon": 10, "iterations": 3, "elites": 8} | settings
    return make_planner(PLANNERS[name][1](**settings), LOW, HIGH)


def integrator(obs, actions):
    """s' = s + a, exactly."""
    start = obs[:, None, None].expand(-1, actions.shape[1], -1, -1)
    return torch.cat([start, start + actions.cumsum(2)], 2)


def to_one(obs, action, next_obs):
    return -(next_obs - 1).square().sum(-1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def searched(search, obs, start=None, reward=to_one, seed=0):
    """The plan, and the sequences that were rolled out in each iteration."""
    seen = []

    def rollout(obs, actions):
        seen.append(actions)
        return integrator(obs, actions)

    start = search.initial(len(obs)) if start is None else start
    return *search.plan(rollout, reward, obs, start, generator(seed)), seen


def through(kind, at, values, times):
    """SciPy's and NumPy's idea of the function through values [K] at `at`."""
    if kind == "linear" or len(at) < 3:
        return np.interp(times, at, values)
    from scipy.interpolate import CubicSpline

    return CubicSpline(at, values, bc_type="natural")(times)


@pytest.mark.parametrize(
    ("kind", "count", "horizon"),
    [
        pytest.param(kind, *sizes, marks=WITH_SCIPY if kind == "cubic" and sizes[0] > 2 else ())
        for kind in INTERPOLATIONS
        for sizes in [(2, 7), (3, 20), (5, 20), (7, 12), (9, 9)]
    ],
)
def test_interpolation_is_that_of_scipy(kind, count, horizon):
    at, times = np.linspace(0, horizon - 1, count), np.linspace(0, horizon - 1, 61)
    matrix = interpolation_matrix(torch.from_numpy(at), torch.from_numpy(times), kind)
    values = np.random.default_rng(0).normal(size=count)
    np.testing.assert_allclose(
        matrix.numpy() @ values, through(kind, at, values, times), atol=1e-12
    )


@pytest.mark.parametrize("kind", BESIDE_ORACLES)
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_what_is_rolled_out_goes_through_its_knots_and_stays_in_bounds(name, kind):
    search = planner(name, knots=4, interpolation=kind)
    obs = torch.tensor([[0.5, -0.3], [3.0, 2.0]])
    action, start, seen = searched(search, obs)
    assert start.shape == (2, search.carried, 4, 2)
    assert action.shape == (2, 2)
    bounds = LOW.numpy(), HIGH.numpy()
    for actions in seen:
        assert actions.shape[2] == 10
        for sequence in actions.flatten(0, 1).double().numpy():
            for control, (low, high) in enumerate(zip(*bounds, strict=True)):
                values = sequence[EVERY_THIRD, control]
                wanted = through(kind, EVERY_THIRD, values, np.arange(10)).clip(low, high)
                np.testing.assert_allclose(sequence[:, control], wanted, atol=1e-5)


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_a_linear_knot_at_every_step_is_no_knots_at_all(name):
    obs = torch.tensor([[0.5, -0.3], [3.0, 2.0]])
    plain, starts, _ = searched(planner(name), obs)
    action, start, _ = searched(planner(name, knots=10), obs)
    assert torch.equal(action, plain)
    assert torch.equal(start, starts)


def test_one_knot_holds_one_action():
    _, start, seen = searched(planner(knots=1), torch.tensor([[0.5, -0.3]]))
    assert start.shape == (1, 1, 1, 2)
    assert all(torch.equal(a, a[:, :, :1].expand_as(a)) for a in seen)


@pytest.mark.parametrize("kind", BESIDE_ORACLES)
def test_all_that_is_carried_moves_on_along_its_sequence(kind):
    """The knots of the next search are where the sequences of this one are a step later; elites
    that iCEM keeps too."""
    search = planner("icem", knots=4, interpolation=kind)
    carried = search.initial(1) + torch.rand(1, search.carried, 4, 2, generator=generator()) - 0.5
    moved = search.moved_on(carried)[0].double().numpy()
    later = [1, 4, 7, 9]  # the last action is repeated
    for sequence, knots in zip(moved, carried[0].double().numpy(), strict=True):
        for control in range(2):
            wanted = through(kind, EVERY_THIRD, knots[:, control], later)
            wanted = wanted.clip(float(LOW[control]), float(HIGH[control]))
            np.testing.assert_allclose(sequence[:, control], wanted, atol=1e-6)


@pytest.mark.parametrize("kind", INTERPOLATIONS)
def test_elites_that_are_kept_are_among_the_next_samples(kind):
    search = planner("icem", knots=4, interpolation=kind, kept=0.5, iterations=2)
    obs = torch.tensor([[0.5, -0.3]])
    _, start, (first, second) = searched(search, obs)
    best = to_one(None, None, integrator(obs, first)[:, :, 1:]).sum(-1).topk(4, dim=1).indices
    torch.testing.assert_close(second[0, -5:-1], first[0, best[0]])
    _, _, (again, _) = searched(search, obs, start)
    torch.testing.assert_close(again[0, -4:], search.knots.actions(start)[0, 1:])


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_finds_the_optimum_where_knots_can_express_it(name, kind):
    """A target in one step's reach that is held from there on: two knots hold ½ exactly."""
    search = planner(name, knots=2, interpolation=kind, samples=300, iterations=8, min_std=0.01)

    def reward(obs, action, next_obs):
        return -(action - 0.5).square().sum(-1)

    action, start, _ = searched(search, torch.zeros(1, 2), reward=reward)
    torch.testing.assert_close(action, torch.full((1, 2), 0.5), atol=0.05, rtol=0)
    torch.testing.assert_close(start[:, 0], torch.full((1, 2, 2), 0.5), atol=0.05, rtol=0)


def distance_from_uniform(values):
    """Kolmogorov and Smirnov's statistic of values from 0 to 1, times √n: above 1.95 in one
    sample of a thousand."""
    ordered, n = np.sort(values), len(values)
    steps = np.arange(n)
    gap = max((ordered - steps / n).max(), ((steps + 1) / n - ordered).max())
    return gap * n**0.5


@pytest.mark.parametrize("knots", [None, 4])
@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_the_global_share_spans_the_range_however_narrow_the_search(name, knots):
    search = planner(name, knots=knots, global_share=0.25, samples=400, std=0.01, min_std=0.001)
    _, _, seen = searched(search, torch.zeros(1, 2))
    at = range(10) if knots is None else EVERY_THIRD
    for iteration, actions in enumerate(seen):
        count = 400 if name != "icem" else search.samples[iteration]
        far = int(0.25 * count)
        assert actions.shape[1] - count in (0, search.carried - 1, search.carried)
        share = ((actions - LOW) / (HIGH - LOW))[0].double().numpy()
        spanning, local = share[:far, at], share[far:count]
        assert distance_from_uniform(spanning.ravel()) < 1.95
        for step in range(len(at)):
            for control in range(2):
                assert spanning[:, step, control].min() < 0.1
                assert spanning[:, step, control].max() > 0.9
        if not iteration:
            assert abs(local - 0.5).max() < 0.05


@pytest.mark.parametrize("name", OF_SEQUENCES)
def test_a_narrow_search_finds_what_is_far_away_with_global_samples_alone(name):
    """A small reward around 0, where the search begins, and a large one where no Gaussian of a
    tenth of the range gets."""

    def reward(obs, action, next_obs):
        near = 0.1 * (-10 * action[..., 0].square()).exp()
        return near + (action[..., 0] > 0.7).float()

    settings = {"knots": 1, "std": 0.1, "min_std": 0.02, "iterations": 2, "samples": 100}
    settings |= {"execute": "best"}
    for share, least in ((0.0, -1.0), (0.3, 0.7)):
        search = planner(name, global_share=share, **settings)
        action, _, _ = searched(search, torch.zeros(1, 2), reward=reward)
        assert least < action[0, 0] < least + 1.5


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("cem", {"knots": 11}, "planner.knots must be at most planner.horizon=10, or null, not 11"),
        ("policy", {"knots": 3}, "planner.knots and planner.global_share are of action sequences"),
        ("policy", {"global_share": 0.1}, "leave them out, or choose cem, icem or mppi"),
    ],
)
def test_what_cannot_be_is_refused(name, settings, said):
    with pytest.raises(ValueError, match=said):
        planner(name, **settings)
