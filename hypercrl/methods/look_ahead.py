"""A network's shadow, one Adam step ahead of it."""

import copy

import torch
from torch import nn


class LookAhead:
    """Answers where Adam's next step would take a network, without taking it.

    The shadow is a copy of the network with an Adam of its own; before every question it is set to
    the network's parameters and moments, so the step is Adam's to the last bit. Shadow and network
    share their gradients: what is back-propagated through the shadow lands on the network, which is
    right because Δθ counts as a constant (hypercrl.md, step 4).

    Args:
        network: the module whose parameters `adam` trains (it may train others too).
        adam: its optimiser.
    """

    def __init__(self, network: nn.Module, adam: torch.optim.Adam) -> None:
        self.adam = adam
        self.network = copy.deepcopy(network)
        self._pairs = list(zip(network.parameters(), self.network.parameters(), strict=True))
        settings = {k: v for k, v in adam.param_groups[0].items() if k != "params"}
        self._shadow_adam = torch.optim.Adam(self.network.parameters(), **settings)
        for _, shadow in self._pairs:
            shadow.grad = torch.zeros_like(shadow)
        self._shadow_adam.step()

    @torch.no_grad()
    def advance(self) -> nn.Module:
        """The network at θ + Δθ, for the gradients that θ holds now."""
        for parameter, shadow in self._pairs:
            shadow.copy_(parameter)
            shadow.grad = parameter.grad
            moments = self.adam.state.get(parameter)
            for name, value in self._shadow_adam.state[shadow].items():
                if moments:
                    value.copy_(moments[name])
                else:
                    value.zero_()
        self._shadow_adam.step()
        return self.network
