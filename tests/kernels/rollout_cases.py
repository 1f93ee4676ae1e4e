"""Random networks, and the rollout as its definition says."""

import itertools

import torch

from hypercrl_kernels import GaussianLayers


def random_layers(sizes, robots=None, dtype=torch.float64, seed=0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    lead = () if robots is None else (robots,)
    return [
        (
            (torch.randn(*lead, o, i, generator=g, dtype=dtype) / i**0.5).to(device),
            (torch.randn(*lead, o, generator=g, dtype=dtype) / 10).to(device),
        )
        for i, o in itertools.pairwise(sizes)
    ]


def random_gaussian_layers(sizes, robots=None, dtype=torch.float64, seed=0, device="cpu"):
    """Their log-variances lie beyond, between and below bounds that differ by dimension."""
    g = torch.Generator().manual_seed(seed)
    lead = () if robots is None else (robots,)
    size, width = sizes[-1], sizes[-2]
    head = (
        (torch.randn(*lead, size, width, generator=g, dtype=dtype) / width**0.5).to(device),
        torch.randn(*lead, size, generator=g, dtype=dtype).to(device),
    )
    low, high, scale = torch.rand(3, size, generator=g, dtype=dtype)
    bounds = torch.stack([(low - 3).exp(), (-high).exp(), scale])
    bounds[2, 0] = 0.0  # a dimension that stands still
    return GaussianLayers(
        random_layers(sizes, robots, dtype, seed, device), head, bounds.to(device)
    )


def random_start(robots, samples, horizon, sizes, seed=1, device="cpu"):
    """state [B, O] and controls [B, K, H, A] for a network of these sizes."""
    g = torch.Generator().manual_seed(seed)
    state = torch.randn(robots, sizes[-1], generator=g)
    controls = torch.randn(robots, samples, horizon, sizes[0] - sizes[-1], generator=g)
    return state.to(device), controls.to(device)


def step_by_step(layers, state, controls, noise=None):
    """One robot, one particle, one step at a time, in float64."""
    gaussian = layers if isinstance(layers, GaussianLayers) else None
    layers = layers.mean if gaussian else layers
    layers = [(w.double().cpu(), b.double().cpu()) for w, b in layers]
    state, controls = state.double().cpu(), controls.double().cpu()
    robots, particles, horizon, _ = controls.shape
    out = torch.empty(robots, particles, horizon + 1, state.shape[1], dtype=torch.float64)
    for b in range(robots):
        for k in range(particles):
            s = state[b]
            out[b, k, 0] = s
            for t in range(horizon):
                x = torch.cat([s, controls[b, k, t]])
                for i, (w, c) in enumerate(layers):
                    w, c = (w[b], c[b]) if w.dim() == 3 else (w, c)
                    last, x = x, w @ x + c
                    if i < len(layers) - 1:
                        x = x.clamp_min(0)
                if noise is not None:
                    x = x + standard_deviation(gaussian, b, last) * noise[b, k, t].double().cpu()
                s = s + x
                out[b, k, t + 1] = s
    return out


def standard_deviation(layers, robot, x):
    """Of a next state, by the softplus bounds of Chua et al. 2018, appendix A.1."""
    w, c = (t.double().cpu() for t in layers.head)
    w, c = (w[robot], c[robot]) if w.dim() == 3 else (w, c)
    least, inverse_most, scale = layers.bounds.double().cpu()
    low, high = least.log(), -inverse_most.log()
    raw = high - softplus(high - (w @ x + c))
    return scale * ((low + softplus(raw - low)) / 2).exp()


def softplus(x):
    return torch.log1p(x.exp())


def relative_error(got, exact):
    """Of the distance moved from the start, not of the position."""
    exact = exact.to(got.device)
    return float((got - exact).norm() / (exact - exact[:, :, :1]).norm())
