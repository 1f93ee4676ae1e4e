"""Does a memory's context hold what is hidden? A linear read-out of it after n transitions.

Of random episodes that no model was trained on, those of one half fit a ridge regression from the
context to the hidden number, and the other half says how well. Of a number that changes within an
episode transitions count from the first observation of its last value. Where R² is near 1 the
context has the number, linearly, and what is lacking is lacking in what is made of it.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from find_densities import collect
from torch import Tensor

from hypercrl.config.schema import TrainConfig
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.training.open_run import open_run

STEPS = (1, 5, 10, 20, 50)
"""Transitions after which it is read out."""
RIDGE = 1.0
"""Of contexts with a standard deviation of one."""
FLOOR = "shuffled"
"""The same after `FLOOR_STEPS`, of numbers that belong to other episodes: what chance comes to."""
FLOOR_STEPS = 20

Episodes = tuple[Tensor, Tensor]
"""Observations [E, T + 1, O + K], in which the hidden numbers come last, and actions [E, T, A]."""


def hidden_episodes(pool: ProcessPoolExecutor, config: TrainConfig, count: int) -> Episodes:
    """Random episodes of the first task of a sequence that is told what is hidden.

    Args:
        pool: of processes that simulate.
        config: of that sequence; the episodes depend on its seed.
    """
    return collect(pool, config, "episodes to read out", count)


def read_out(folder: Path, episodes: Episodes) -> dict[str, float] | None:
    """R² of a trained run by the number of transitions, and `FLOOR`; None: it has no memory."""
    torch.set_num_threads(1)
    experiment = open_run(folder, "cpu")
    model = experiment.model
    if not isinstance(model, ContextModel) or model.context_config.always:
        return None
    size, (told, actions) = experiment.sequence.observation_size, episodes
    obs, hidden = told[..., :size], told[..., size:]
    with torch.no_grad():
        tokens = model.tokens(obs[:, :-1], actions, obs[:, 1:])
        contexts, _ = model.encoder.encode(tokens)
    return read_contexts(contexts, hidden)


def read_contexts(contexts: Tensor, hidden: Tensor) -> dict[str, float]:
    """The same of contexts [E, T, C] after each transition and numbers [E, T + 1, K] before it."""
    numbers, first = hidden[:, -1], last_change(hidden)
    found, rows = {}, torch.arange(len(contexts))
    for steps in STEPS:
        after = first + steps - 1
        if after.max() < contexts.shape[1]:
            found[str(steps)] = linear_fit(contexts[rows, after], numbers)
    order = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(0))
    found[FLOOR] = linear_fit(contexts[rows, first + FLOOR_STEPS - 1], numbers[order])
    return found


def last_change(hidden: Tensor) -> Tensor:
    """[E]: the first observation of [E, T + 1, K] that shows the last value from there on."""
    other = (hidden != hidden[:, -1:]).any(-1)
    steps = torch.arange(1, hidden.shape[1] + 1)
    return (other * steps).amax(1)


def linear_fit(inputs: Tensor, outputs: Tensor) -> float:
    """R² over all outputs [N, K] of a ridge regression from [N, C], on the half not fitted to.

    Outputs that never differ do not count.
    """
    half = len(inputs) // 2
    x, y = inputs.double(), outputs.double()
    x = (x - x[:half].mean(0)) / x[:half].std(0).clamp(min=1e-9)
    y = y[:, y.std(0) > 1e-6] - y[:half, y.std(0) > 1e-6].mean(0)
    gram = x[:half].T @ x[:half] + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    predicted = x[half:] @ torch.linalg.solve(gram, x[:half].T @ y[:half])
    missed = (predicted - y[half:]).square().sum()
    return float(1 - missed / (y[half:] - y[half:].mean(0)).square().sum())
