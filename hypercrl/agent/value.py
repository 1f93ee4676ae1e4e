"""What is to come behind the end of a plan: a learned value of the last state.

A plan of H steps sees no reward behind them, and will pay any price there for one before. What it
comes to with V(s_H) behind its end,

    Σ_{t<H} γ^t r_t + γ^H V(s_H),

is the terminal value of model-predictive control: Lowrey et al., "Plan online, learn offline",
ICLR 2019; Sikchi, Zhou and Held, "Learning off-policy with online planning", CoRL 2021; Hansen,
Wang and Su, "Temporal difference learning for model predictive control", ICML 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.initial_weights import xavier_uniform
from hypercrl.base.saved import same_kind
from hypercrl.base.settings import choice, number

NETWORKS = 2
"""The least of so many is believed: where they differ one of them is too large, and plans, which
look for large values, would find that one (Fujimoto, van Hoof and Meger, "Addressing function
approximation error in actor-critic methods", ICML 2018)."""

_LEARNED = ("kind=td",)


@dataclass
class ValueConfig:
    """What counts behind the end of a plan; of its learning, `hypercrl.training.value_learner`."""

    kind: str = choice(
        "none", "none", "td", help="behind a plan's end: nothing, or a value learned by TD"
    )
    discount: float = number(
        0.99, least=0, most=0.9999, only_with=_LEARNED, help="γ of rewards and value, a step"
    )
    steps: int = number(
        5, least=1, most=1000, only_with=_LEARNED, help="n, rewards in a target before a value"
    )
    hidden: list[int] = number(
        [256, 256], least=1, only_with=_LEARNED, help="width of each hidden layer"
    )
    learning_rate: float = number(3e-4, least=0, only_with=_LEARNED, help="of Adam")
    target_rate: float = number(
        0.005,
        least=0,
        most=1,
        only_with=_LEARNED,
        help="share of the way that target networks follow in a step",
    )
    updates: int = number(
        1, least=1, only_with=_LEARNED, help="steps of it beside each training step of the model"
    )


class Value(nn.Module):
    """V(s) of one task, in units of its return: a network of its own, as its reward is.

    V(s) = u min_j f_j(z) with z = sign(x) ln(1 + |x|) of x = (s − mean) / scale, so that neither a
    dimension that goes on and on nor a unit is in the way of the others (the symmetric logarithm
    of Hafner et al., "Mastering diverse domains through world models", 2023). Hidden layers are
    normalised (Ba, Kiros and Hinton 2016) and go through SiLU. The last layer begins at 0: before
    anything is learned, nothing counts behind a plan's end.

    Args:
        config: sizes and discount.
        obs_size: O.
        generator: of initial weights, on the CPU, as the value is at first.

    Attributes:
        discount: γ.
        mean, scale: [O], see `standardise`.
        unit: u, see `fit`.
        layers: weight [2, in, out] and bias [2, 1, out] of each layer, one after the other.
    """

    mean: Tensor
    scale: Tensor
    unit: Tensor

    def __init__(self, config: ValueConfig, obs_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.discount = config.discount
        self.layers = nn.ParameterList()
        for inputs, outputs in pairwise([obs_size, *config.hidden, 1]):
            drawn = [xavier_uniform((outputs, inputs), generator).T for _ in range(NETWORKS)]
            self.layers += [torch.stack(drawn), torch.zeros(NETWORKS, 1, outputs)]
        with torch.no_grad():
            self.layers[-2].zero_()
        self.register_buffer("mean", torch.zeros(obs_size))
        self.register_buffer("scale", torch.ones(obs_size))
        self.register_buffer("unit", torch.ones(()))

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Look at observations by these from now on, [O]: copies, so that what later tasks make of
        the model's scales is nothing to this one. ∞ is the scale of what has not moved."""
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def fit(self, rewards: Tensor) -> None:
        """Measure values in u = √(mean r² / (1 − γ²)), in place: the standard deviation of a return
        whose rewards are independent and of this size; 1 where nothing is paid.

        Args:
            rewards: [N] of the random steps.
        """
        square = rewards.square().mean() / (1 - self.discount**2)
        self.unit.copy_(torch.where(square > 0, square, 1.0).sqrt())

    def each(self, obs: Tensor, layers: Sequence[Tensor] | None = None) -> Tensor:
        """[2, ...] what each network says of states [..., O], in units of u.

        Args:
            layers: in place of its own.
        """
        x = (obs - self.mean) / self.scale
        x = (x.sign() * x.abs().log1p()).reshape(-1, x.shape[-1]).expand(NETWORKS, -1, -1)
        *hidden, weight, bias = self.layers if layers is None else layers
        for inner, offset in zip(hidden[::2], hidden[1::2], strict=True):
            x = torch.baddbmm(offset, x, inner)
            x = F.silu(F.layer_norm(x, x.shape[-1:]))
        return torch.baddbmm(bias, x, weight).view(NETWORKS, *obs.shape[:-1])

    def forward(self, obs: Tensor) -> Tensor:
        """States [..., O] → values [...]; not a number of what is none."""
        return self.unit * self.each(obs).amin(0)

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, in place.

        Raises:
            KeyError, ValueError: it is not of such networks.
        """
        with torch.no_grad():
            for name, own in self.state_dict().items():
                own.copy_(same_kind(name, state[name], own))
