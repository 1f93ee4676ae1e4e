import pytest
import torch

from hypercrl_kernels import sample_actions

LOW, HIGH = torch.tensor([-0.5, -2.0, 0.1]), torch.tensor([0.7, 2.0, 0.2])


def by_kernel(*arguments):
    from hypercrl_kernels.planning.update_launch import launch_sampling

    return launch_sampling(*arguments)


def arguments(robots=2, samples=70, horizon=5, device="cpu"):
    g = torch.Generator().manual_seed(0)
    mean = torch.randn(robots, horizon, 3, generator=g)
    std = torch.rand(robots, horizon, 3, generator=g)
    noise = torch.randn(robots, samples, horizon, 3, generator=g)
    return [t.to(device) for t in (mean, std, noise, LOW, HIGH)]


def test_reference_is_the_definition():
    mean, std, noise, low, high = arguments()
    wanted = torch.minimum(torch.maximum(mean[:, None] + std[:, None] * noise, low), high)
    torch.testing.assert_close(sample_actions(mean, std, noise, low, high), wanted)


def test_kernel_is_the_reference(device):
    got = by_kernel(*arguments(device=device))
    torch.testing.assert_close(got.cpu(), sample_actions(*arguments()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(2, 4, 3)}, r"mean and std \[B, H, A\]"),
        ({2: torch.zeros(2, 5, 3)}, r"noise \[B, K, H, A\]"),
        ({3: torch.zeros(2)}, r"bounds \[A\], here \[3\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(change, message):
    given = arguments()
    for place, tensor in change.items():
        given[place] = tensor
    with pytest.raises(ValueError, match=message):
        sample_actions(*given)
