"""Where a parameter will be after Adam's next step."""

import torch
from torch import Tensor, nn

from hypercrl_kernels.training import AdamMoments, AdamSettings, adam_ahead


def settings_of(adam: torch.optim.Adam) -> AdamSettings:
    group = adam.param_groups[0]
    return AdamSettings(group["lr"], group["betas"][0], group["betas"][1], group["eps"])


def moments_of(adam: torch.optim.Adam, parameter: nn.Parameter) -> AdamMoments:
    """Adam's state of a parameter, made as Adam would before its first step."""
    state = adam.state[parameter]
    if not state:
        state["step"] = torch.zeros((), device=parameter.device)
        state["exp_avg"] = torch.zeros_like(parameter)
        state["exp_avg_sq"] = torch.zeros_like(parameter)
    return AdamMoments(state["step"], state["exp_avg"], state["exp_avg_sq"])


class LookAhead:
    """Answers where Adam's next step would take a parameter, without taking it.

    The shadow is a copy of the parameter, moved by that step. On a CPU it has an Adam of its own
    that is set to the parameter's moments, so that the step is Adam's to the last bit; on CUDA one
    kernel computes it. Shadow and parameter share their gradient: what is back-propagated to the
    shadow lands on the parameter, which is right because Δθ counts as a constant (docs/method.md,
    "Training step", 2 and 3).

    Args:
        parameter: θ, flat.
        adam: its optimiser, which may train others too.
    """

    def __init__(self, parameter: nn.Parameter, adam: torch.optim.Adam) -> None:
        self.parameter = parameter
        self.adam = adam
        self.settings = settings_of(adam)
        self.shadow = nn.Parameter(torch.zeros_like(parameter))
        self._shadow_adam = None
        if not parameter.is_cuda:
            self.shadow.grad = torch.zeros_like(parameter)
            settings = {k: v for k, v in adam.param_groups[0].items() if k != "params"}
            self._shadow_adam = torch.optim.Adam([self.shadow], **settings)
            self._shadow_adam.step()

    @torch.no_grad()
    def advance(self) -> Tensor:
        """θ + Δθ for the gradient that θ holds now; its own gradient is added to that."""
        gradient = self.parameter.grad
        self.shadow.grad = gradient
        if self._shadow_adam is None:
            assert gradient is not None
            moments = moments_of(self.adam, self.parameter)
            adam_ahead(self.parameter, gradient, moments, self.settings, out=self.shadow)
            return self.shadow
        self.shadow.copy_(self.parameter)
        moments = self.adam.state.get(self.parameter)
        for name, value in self._shadow_adam.state[self.shadow].items():
            if moments:
                value.copy_(moments[name])
            else:
                value.zero_()
        self._shadow_adam.step()
        return self.shadow
