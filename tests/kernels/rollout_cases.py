"""Random networks, and the rollout as its definition says."""

import itertools

import torch


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


def random_start(robots, samples, horizon, sizes, seed=1, device="cpu"):
    """state [B, O] and controls [B, K, H, A] for a network of these sizes."""
    g = torch.Generator().manual_seed(seed)
    state = torch.randn(robots, sizes[-1], generator=g)
    controls = torch.randn(robots, samples, horizon, sizes[0] - sizes[-1], generator=g)
    return state.to(device), controls.to(device)


def step_by_step(layers, state, controls):
    """One robot, one particle, one step at a time, in float64."""
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
                    x = w @ x + c
                    if i < len(layers) - 1:
                        x = x.clamp_min(0)
                s = s + x
                out[b, k, t + 1] = s
    return out


def relative_error(got, exact):
    """Of the distance moved from the start, not of the position."""
    exact = exact.to(got.device)
    return float((got - exact).norm() / (exact - exact[:, :, :1]).norm())
