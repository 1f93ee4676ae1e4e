"""What a sequence of actions is worth when it pays differently under several hypotheses.

Hypotheses are the members of an ensemble, tasks that are possible, or both. Each has a probability
p_m, and pays the return R_m.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

RISKS = ("mean", "worst", "cvar", "penalty")

Measure = Callable[[Tensor, Tensor], Tensor]
"""(returns [B M, K] under the hypotheses, their probabilities [B, M]) → what counts, [B, K]."""

POSSIBLE = 0.01
"""Of the likeliest hypothesis' probability: `worst` does not look at what is less likely."""


def risk_measure(risk: str, alpha: float, beta: float) -> Measure:
    """The one that is called so, among `RISKS`; α of "cvar", β of "penalty"."""
    if risk == "worst":
        return worst_returns
    if risk == "cvar":
        return partial(tail_returns, alpha=alpha)
    if risk == "penalty":
        return partial(penalised_returns, beta=beta)
    return expected_returns


def expected_returns(returns: Tensor, probabilities: Tensor) -> Tensor:
    """Mean over hypotheses: Σ_m p_m R_m, of which one that is out of the question has no part.

    Args:
        returns: [B M, K], those of one robot together; probabilities: [B, M].

    Returns:
        [B, K]; −∞ where one hypothesis pays −∞, whatever another may.
    """
    weights = probabilities[:, :, None]
    weighted = weights * returns.view(*probabilities.shape, -1)
    expected = torch.where(weights > 0, weighted, 0.0).sum(1)  # 0 · −∞ is not a number
    return expected.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)  # nor is ∞ − ∞


def worst_returns(returns: Tensor, probabilities: Tensor) -> Tensor:
    """min_m R_m over the hypotheses that are `POSSIBLE`; shapes of `expected_returns`."""
    possible = probabilities >= POSSIBLE * probabilities.amax(1, keepdim=True)
    each = returns.view(*probabilities.shape, -1)
    return torch.where(possible[:, :, None], each, torch.inf).amin(1)


def tail_returns(returns: Tensor, probabilities: Tensor, alpha: float) -> Tensor:
    """CVaR_α: the mean over the worst hypotheses whose probabilities add up to α.

    The last of these counts with what is missing to α (Rockafellar and Uryasev, "Conditional
    value-at-risk for general loss distributions", 2002). α = 1 is the mean. Shapes of
    `expected_returns`.
    """
    each, order = returns.view(*probabilities.shape, -1).sort(1)
    mass = probabilities[:, :, None].expand_as(each).gather(1, order)
    below = mass.cumsum(1).clamp_max(alpha)
    share = below.diff(dim=1, prepend=torch.zeros_like(below[:, :1]))
    shares = (share / below[:, -1:]).transpose(1, 2).flatten(0, 1)
    kept = expected_returns(each.transpose(1, 2).reshape(-1, 1), shares)
    return kept.view(len(returns) // probabilities.shape[1], -1)


def penalised_returns(returns: Tensor, probabilities: Tensor, beta: float) -> Tensor:
    """E − β √(Σ_m p_m (R_m − E)²), E the mean; −∞ where one of them pays −∞. Shapes of
    `expected_returns`."""
    mean = expected_returns(returns, probabilities)
    away = returns.view(*probabilities.shape, -1) - mean[:, None]
    squares = expected_returns(away.square().flatten(0, 1), probabilities)
    penalised = mean - beta * squares.sqrt()
    return penalised.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
