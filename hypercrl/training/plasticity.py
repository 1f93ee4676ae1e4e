"""How much of its networks a method still uses, as one task after another is learned."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from hypercrl.methods import Method
from hypercrl.metrics import dormant_share, effective_rank
from hypercrl.replay import Replay

INPUTS = 1000
"""Latest transitions of a task that its network is looked at on."""


def plasticity(method: Method, replay: Replay) -> dict[str, float]:
    """Dormant units and effective rank, means over hidden layers, of what was just learned.

    Args:
        method: has just learned the latest of its tasks.
        replay: the transitions of that task.

    Returns:
        "network_dormant" and "network_effective_rank" of the task's dynamics model, on its latest
        transitions; "hypernetwork_…" of a hypernetwork for the embeddings of its tasks so far, of
        which there can be no more ranks. Nothing where a memory is a part of the model, or where
        there is no hidden layer.
    """
    if method.model.memory_parameters():
        return {}
    found = {}
    measures: dict[str, Callable[[Tensor], float]] = {
        "dormant": lambda layer: dormant_share(layer.numpy()),
        "effective_rank": lambda layer: effective_rank(layer.numpy()),
    }
    latest = replay.latest(min(len(replay), INPUTS))
    for network, layers in method.activations(method.tasks - 1, latest).items():
        # The layers of an ensemble are those of its members, one after another.
        apart = [one.cpu() for layer in layers for one in layer.view(-1, *layer.shape[-2:])]
        for name, measure in measures.items():
            if apart:
                found[f"{network}_{name}"] = float(np.mean([measure(layer) for layer in apart]))
    return found
