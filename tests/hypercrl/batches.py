"""Batches of transitions that several tests learn from."""

import torch

from hypercrl.methods import Batch


def linear_system(task, n=64, seed=0):
    """Transitions of s' = s ± a: two tasks in outright conflict."""
    g = torch.Generator().manual_seed(seed + 1000 * task)
    obs, action = torch.randn(n, 2, generator=g), torch.randn(n, 2, generator=g)
    return Batch(obs, action, obs + (-1) ** task * action)


def flat(batch):
    """Of windows [N, L, …] all transitions; of transitions the same ones."""
    return Batch(*(part.flatten(0, -2) for part in (batch.obs, batch.action, batch.next_obs)))
