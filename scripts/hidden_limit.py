"""How much of a hidden number could be found out at all, and what would that be worth?

    python scripts/hidden_limit.py --out OUT [--sequence push_hidden] [--episodes 1600]

Random episodes of the first task. A GRU is trained for nothing but the hidden numbers: after each
transition their mean and variance. Then three equal models of the dynamics, on the same episodes:
one is told the numbers, one nothing, one the estimate of the moment at which its prediction begins.
The last one's error over ten steps, against the first one's, is what a memory with so many episodes
can be expected to come to. OUT/hidden_limit_SEQUENCE_EPISODES.json has the figures.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import torch
from find_densities import collect
from hidden_tasks import HIDDEN, UNUSED_SEED, HiddenCell
from omegaconf import OmegaConf
from torch import Tensor, nn

from hypercrl.base.cores import cores
from hypercrl.base.device import choose_device
from hypercrl.base.strict_json import write_json
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.training.result import git_revision, machine

STEPS = (1, 5, 10, 20, 50)
"""Transitions after which R² is printed."""
FROM, HORIZON = 10, 10
"""First step at which a prediction begins, and the steps that are predicted open loop."""
WINDOWS = 64
"""Of a training step."""


class Episodes:
    """Normalised episodes, those to be learned from first.

    Attributes:
        obs, actions: [E, T + 1, O], [E, T, A]; change: [E, T, O], whose scale is `scale` [O].
        hidden: [E, K], the numbers, of unit variance.
        held: episodes at the end that nothing is trained on.
    """

    def __init__(self, told: Tensor, actions: Tensor, seen: int, held: int) -> None:
        obs, self.held = told[..., :seen], held
        change = obs[:, 1:] - obs[:, :-1]
        self.spread = obs.flatten(0, 1).std(0)
        self.obs = obs / self.spread
        self.actions = actions / actions.flatten(0, 1).std(0)
        self.scale = change.flatten(0, 1).std(0) / self.spread
        self.change = change / self.spread / self.scale
        hidden = told[:, 0, seen:]
        hidden = hidden[:, hidden.std(0) > 1e-6]
        self.hidden = (hidden - hidden.mean(0)) / hidden.std(0)

    def tokens(self) -> Tensor:
        """[E, T, O + A + O], as a memory reads them."""
        return torch.cat([self.obs[:, :-1], self.actions, self.change], -1)


class Estimator(nn.Module):
    """After every transition the mean and the log-variance of the hidden numbers."""

    def __init__(self, inputs: int, numbers: int, width: int = 64) -> None:
        super().__init__()
        self.cells = nn.GRU(inputs, width, 2, batch_first=True)
        self.out = nn.Linear(width, 2 * numbers)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, T, X] → [N, T, 2 K]."""
        return self.out(self.cells(tokens)[0])


def estimated(data: Episodes, updates: int) -> tuple[Tensor, dict[str, float]]:
    """Estimates [E, T, 2 K] before each transition, and their R² on what is held out."""
    tokens, numbers = data.tokens(), data.hidden.shape[1]
    model = Estimator(tokens.shape[-1], numbers).to(tokens.device)
    adam, rate = _adam(model, 2e-3, updates)
    for _ in range(updates):
        rows = torch.randint(len(tokens) - data.held, (WINDOWS,), device=tokens.device)
        mean, logvar = model(tokens[rows]).chunk(2, -1)
        square = (mean - data.hidden[rows][:, None]).square()
        _step(adam, rate, (square * (-logvar).exp() + logvar).mean())
    with torch.no_grad():
        after = torch.cat([model(part) for part in tokens.split(200)])
    held, truth = after[-data.held :, :, :numbers], data.hidden[-data.held :]
    total = truth.square().sum()
    shown = [n for n in STEPS if n <= held.shape[1]]
    fit = {str(n): float(1 - (held[:, n - 1] - truth).square().sum() / total) for n in shown}
    nothing = torch.zeros_like(after[:, :1])
    return torch.cat([nothing, after[:, :-1]], 1), fit


def error(data: Episodes, known: Tensor, updates: int) -> float:
    """RMS error, in observation units, of a model that knows [E, T, K] as a prediction begins.

    It is trained on what it is measured by: `HORIZON` steps open loop, from anywhere.
    """
    count, steps, size = data.change.shape
    width = size + data.actions.shape[-1] + known.shape[-1]
    layers = [nn.Linear(width, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(200, size)).to(known.device)
    adam, rate = _adam(model, 1e-3, updates)

    def missed(rows: Tensor, begins: Tensor) -> Tensor:
        """[H, N, O] in scales of the change."""
        state, knows, each = data.obs[rows, begins], known[rows, begins], []
        for step in range(HORIZON):
            inputs = torch.cat([state, data.actions[rows, begins + step], knows], -1)
            state = state + model(inputs) * data.scale
            each.append((state - data.obs[rows, begins + step + 1]) / data.scale)
        return torch.stack(each)

    last, device = steps - HORIZON + 1, known.device
    for _ in range(updates):
        rows = torch.randint(count - data.held, (WINDOWS,), device=device)
        begins = torch.randint(last, (WINDOWS,), device=device)
        _step(adam, rate, missed(rows, begins).square().mean())
    rows = torch.arange(count - data.held, count, device=device)
    with torch.no_grad():
        found = [missed(rows, torch.full_like(rows, b)) for b in range(FROM, last)]
    in_units = torch.stack(found) * data.scale * data.spread
    return float(in_units.square().mean().sqrt())


def _adam(
    model: nn.Module, rate: float, updates: int
) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.LRScheduler]:
    """With a rate that falls to nothing."""
    adam = torch.optim.Adam(model.parameters(), rate)
    return adam, torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)


def _step(adam: torch.optim.Adam, rate: torch.optim.lr_scheduler.LRScheduler, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()
    rate.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sequence", choices=tuple(HIDDEN), default="push_hidden")
    parser.add_argument("--episodes", type=int, default=1600)
    parser.add_argument("--heldout", type=int, default=300)
    parser.add_argument("--updates", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    words = [*HiddenCell(args.sequence, "told", UNUSED_SEED).words(), "device=cpu"]
    config = cast(TrainConfig, OmegaConf.to_object(composed("train", words)))
    with ProcessPoolExecutor(cores(), get_context("forkserver")) as pool:
        episodes = collect(pool, config, f"limit {args.seed}", args.episodes + args.heldout)
    torch.manual_seed(args.seed)
    device = choose_device(args.device)
    told, actions = (part.to(device) for part in episodes)
    data = Episodes(told, actions, HIDDEN[args.sequence].seen, args.heldout)
    estimates, fit = estimated(data, args.updates // 2)
    print("R² after", {key: round(value, 2) for key, value in fit.items()}, flush=True)
    truth = data.hidden[:, None].expand(-1, data.change.shape[1], -1)
    errors = {}
    for name, known in {"told": truth, "none": truth[..., :0], "estimate": estimates}.items():
        errors[name] = error(data, known, args.updates)
        print(f"{name}: {errors[name]:.4g}, {errors[name] / errors['told']:.2f} × told", flush=True)
    about = {"git": git_revision(), "machine": machine(device), "torch": torch.__version__}
    given = {key: value for key, value in vars(args).items() if key != "out"}
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"hidden_limit_{args.sequence}_{args.episodes}.json"
    write_json(file, {**given, "r2": fit, "error": errors, **about})


if __name__ == "__main__":
    main()
