"""Model-predictive path integral control, over the best samples.

Williams et al., "Information theoretic MPC for model-based reinforcement learning", ICRA 2017; the
softmax over elites and the refitted standard deviation are those of TD-MPC (Hansen et al., ICML
2022, algorithm 1). With elites = samples and one iteration it is MPPI in its first form.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.planning.cem import CEM
from hypercrl.planning.planner import PlannerConfig
from hypercrl.settings import number


@dataclass
class MPPIConfig(PlannerConfig):
    """Settings of MPPI; `temperature` is λ, in units of the return."""

    name: str = "mppi"
    temperature: float = number(1.0, least=1e-6)


class MPPI(CEM):
    """The search of CEM, but samples count by e^{R/λ} instead of being taken or left.

    mean ← Σ w_k a_k and std² ← Σ w_k (a_k − mean)², w = softmax(R/λ) over the elites.
    """

    config: MPPIConfig

    def _fit(self, returns: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        returns, index = returns.topk(config.elites, dim=1)
        elites = actions.gather(1, index[..., None, None].expand(-1, -1, *actions.shape[2:]))
        # Where every elite diverged there is no softmax: they count alike.
        logits = (returns / config.temperature).clamp_min(-1e30)
        weights = torch.softmax(logits, dim=1)[..., None, None]
        mean = (weights * elites).sum(1)
        variance = (weights * (elites - mean[:, None]).square()).sum(1)
        return mean, torch.maximum(variance.sqrt(), self.min_std), elites[:, 0]
