"""Where a parameter will be after Adam's next step."""

import torch
from torch import Tensor, nn


class LookAhead:
    """Answers where Adam's next step would take a parameter, without taking it.

    The shadow is a copy of the parameter with an Adam of its own; before every question it is set
    to the parameter and its moments, so the step is Adam's to the last bit. Shadow and parameter
    share their gradient: what is back-propagated to the shadow lands on the parameter, which is
    right because Δθ counts as a constant (hypercrl.md, step 4).

    Args:
        parameter: θ.
        adam: its optimiser, which may train others too.
    """

    def __init__(self, parameter: nn.Parameter, adam: torch.optim.Adam) -> None:
        self.parameter = parameter
        self.adam = adam
        settings = {k: v for k, v in adam.param_groups[0].items() if k != "params"}
        self.shadow = nn.Parameter(torch.zeros_like(parameter))
        self.shadow.grad = torch.zeros_like(parameter)
        self._shadow_adam = torch.optim.Adam([self.shadow], **settings)
        self._shadow_adam.step()

    @torch.no_grad()
    def advance(self) -> Tensor:
        """θ + Δθ for the gradient that θ holds now; its own gradient is added to that."""
        self.shadow.copy_(self.parameter)
        self.shadow.grad = self.parameter.grad
        moments = self.adam.state.get(self.parameter)
        for name, value in self._shadow_adam.state[self.shadow].items():
            if moments:
                value.copy_(moments[name])
            else:
                value.zero_()
        self._shadow_adam.step()
        return self.shadow
