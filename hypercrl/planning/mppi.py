"""Model-predictive path integral control, over the best samples.

Williams et al., "Information theoretic MPC for model-based reinforcement learning", ICRA 2017,
without the cost of control in their weights (λ uᵀ Σ⁻¹ ε, equation 34): actions cost what the reward
says that they cost. The softmax over elites and the refitted standard deviation are those of TD-MPC
(Hansen et al., ICML 2022, algorithm 1). With elites = samples and one iteration it is MPPI in its
first form.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.planning.planner import Planner, PlannerConfig
from hypercrl.planning.search import Search
from hypercrl_kernels import sample_actions


@dataclass
class MPPIConfig(PlannerConfig):
    """Settings of MPPI; with a `temperature` of None the reward's unit and zero change no plan."""

    name: str = "mppi"
    temperature: float | None = number(
        None,
        least=1e-6,
        help="λ, in units of the return; null is the elites' mean distance from the best",
    )


class MPPI(Planner):
    """A Gaussian is refitted to samples that count by e^{R/λ}.

    mean ← Σ w_k a_k and std² ← Σ w_k (a_k − mean)², w = softmax(R/λ) over the elites.
    """

    config: MPPIConfig

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return sample_actions(search.mean, search.std, noise, self.low, self.high)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        config = self.config
        returns, index = returns.topk(config.elites, dim=1)
        elites = actions.gather(1, index[..., None, None].expand(-1, -1, *actions.shape[2:]))
        weights = path_weights(returns, config.temperature)[..., None, None]
        mean = (weights * elites).sum(1)
        variance = (weights * (elites - mean[:, None]).square()).sum(1)
        std = torch.maximum(variance.sqrt(), self.min_std)
        return replace(search, mean=mean, std=std, best=elites[:, 0])


def path_weights(returns: Tensor, temperature: float | None) -> Tensor:
    """softmax(R/λ) over the last dimension; by default λ is the mean of max R − R, where finite.

    Infinite returns have the weights of the limit: those of +∞ share all of it, those of −∞ have
    none; where all returns are alike, infinite or not, all weights are.

    Args:
        returns: [B, K], none of them NaN.

    Returns:
        [B, K].
    """
    best = returns.amax(-1, keepdim=True)
    gap = torch.where(returns == best, 0.0, best - returns)  # ∞ − ∞ is not a number
    if temperature is None:
        finite = gap.isfinite()
        share = gap / finite.sum(-1, keepdim=True)  # divided first: the sum overflows in no case
        unit = share.where(finite, 0.0).sum(-1, keepdim=True)
        gap = gap / unit.clamp_min(torch.finfo(gap.dtype).tiny)
    else:
        gap = gap / temperature
    return torch.softmax(-gap, -1)
