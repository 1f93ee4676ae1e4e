import pytest
import torch

from hypercrl_kernels import elite_statistics, refit_and_sample, sample_actions

NAN, INF = torch.nan, torch.inf
FLOOR = torch.tensor([0.3, 0.01])


def by_kernel(returns, actions, elites, min_std):
    from hypercrl_kernels.planning.update_launch import launch_elites

    return launch_elites(returns, actions, elites, min_std)


def by_hand(returns, actions, elites, min_std):
    """Python's stable sort and two sums, in float64."""
    mean, std, best = [], [], []
    for scores, sequences in zip(returns.tolist(), actions.double().cpu(), strict=True):
        value = [-INF if r != r else r for r in scores]
        order = sorted(range(len(value)), key=lambda k: -value[k])[:elites]
        chosen = sequences[order]
        mean.append(chosen.sum(0) / elites)
        spread = ((chosen - mean[-1]).square().sum(0) / elites).sqrt()
        std.append(torch.maximum(spread, min_std.double().cpu()))
        best.append(chosen[0])
    return [torch.stack(each).float() for each in (mean, std, best)]


def check(function, returns, elites, device, horizon=3):
    g = torch.Generator().manual_seed(0)
    actions = torch.randn(*returns.shape, horizon, 2, generator=g).to(device)
    got = function(returns.to(device), actions, elites, FLOOR.to(device))
    wanted = by_hand(returns, actions, elites, FLOOR)
    for name, a, b in zip(("mean", "std", "best"), got, wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: n + m)
    assert torch.equal(got.best.cpu(), wanted[2])


CASES = {
    "several robots": (torch.randn(3, 37, generator=torch.Generator().manual_seed(1)), 5),
    "one elite": (torch.randn(1, 16, generator=torch.Generator().manual_seed(2)), 1),
    "all are elites": (torch.randn(2, 11, generator=torch.Generator().manual_seed(3)), 11),
    "all equal": (torch.full((1, 40), -2.5), 7),
    "ties at the threshold": (torch.tensor([[1.0, 3, 2, 2, 0, 2, 5, 2, 2]]), 4),
    "both zeros are equal": (torch.tensor([[-0.0, 0.0, -1, -0.0, 0.0]]), 3),
    "not a number": (torch.tensor([[NAN, -7.0, NAN, -1e30, NAN]]), 2),
    "not a number is no worse than −inf": (torch.tensor([[NAN, -INF, -INF, -3.0, NAN]]), 3),
    "infinite": (torch.tensor([[1.0, INF, -INF, INF, 3e38]]), 3),
    "nothing finite": (torch.full((1, 9), NAN), 4),
    "signs and sizes": (torch.tensor([[1e-40, -1e-40, 1e38, -1e38, 1.0, -1.0, 0.0]]), 5),
}


@pytest.mark.parametrize("name", CASES)
def test_reference_takes_the_best(name):
    check(elite_statistics, *CASES[name], device="cpu")


@pytest.mark.parametrize("name", CASES)
def test_kernel_takes_the_best(name, device):
    check(by_kernel, *CASES[name], device=device)


def by_refit(returns, actions, elites, min_std):
    from hypercrl_kernels.planning.update_launch import launch_refit

    g = torch.Generator().manual_seed(5)
    noise = (2 * torch.randn(actions.shape, generator=g)).to(actions.device)
    bounds = torch.tensor([[-0.5, -1.0], [1.0, 0.25]], device=actions.device)
    fitted, drawn = launch_refit(returns, actions, elites, min_std, noise, *bounds)
    wanted = sample_actions(fitted.mean.cpu(), fitted.std.cpu(), noise.cpu(), *bounds.cpu())
    torch.testing.assert_close(drawn.cpu(), wanted, rtol=1e-6, atol=1e-6)
    return fitted


@pytest.mark.parametrize("name", CASES)
def test_refit_takes_the_best_and_draws_the_next(name, device):
    check(by_refit, *CASES[name], device=device)


def test_refit_in_torch_operations_is_both_parts():
    returns, actions, noise = torch.randn(2, 30), *torch.randn(2, 2, 30, 3, 2)
    low, high = torch.tensor([[-1.0, -0.5], [0.5, 1.0]])
    fitted, drawn = refit_and_sample(returns, actions, 6, FLOOR, noise, low, high)
    wanted = elite_statistics(returns, actions, 6, FLOOR)
    assert all(torch.equal(a, b) for a, b in zip(fitted, wanted, strict=True))
    assert torch.equal(drawn, sample_actions(wanted.mean, wanted.std, noise, low, high))


@pytest.mark.parametrize("samples", [500, 2000])
def test_kernel_at_the_size_of_a_plan(device, samples):
    returns = torch.randn(2, samples, generator=torch.Generator().manual_seed(4))
    check(by_kernel, returns, 40, device, horizon=9)
    check(by_refit, returns, 40, device, horizon=9)


def test_kernel_repeats_itself(device):
    returns = torch.randint(0, 3, (1, 100)).float().to(device)
    actions = torch.randn(1, 100, 4, 2, device=device)
    first, again = (by_kernel(returns, actions, 20, FLOOR.to(device)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("returns", "actions", "elites", "floor", "message"),
    [
        ((2, 5), (2, 6, 3, 2), 2, 2, "one B and K"),
        ((2, 5), (2, 5, 3, 2), 6, 2, "takes 1 to K=5 elites, not 6"),
        ((2, 5), (2, 5, 3, 2), 0, 2, "takes 1 to K=5 elites, not 0"),
        ((2, 5), (2, 5, 3, 2), 2, 3, r"min_std \[A\], here \[2\]"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(returns, actions, elites, floor, message):
    with pytest.raises(ValueError, match=message):
        elite_statistics(torch.zeros(returns), torch.zeros(actions), elites, torch.zeros(floor))
