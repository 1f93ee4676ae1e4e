"""Model-predictive path integral control, over the best samples.

Williams et al., "Information theoretic MPC for model-based reinforcement learning", ICRA 2017; the
softmax over elites and the refitted standard deviation are those of TD-MPC (Hansen et al., ICML
2022, algorithm 1). With elites = samples and one iteration it is MPPI in its first form.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.planning.planner import Planner, PlannerConfig
from hypercrl.settings import number
from hypercrl_kernels import sample_actions


@dataclass
class MPPIConfig(PlannerConfig):
    """Settings of MPPI; `temperature` is λ, in units of the return."""

    name: str = "mppi"
    temperature: float = number(1.0, least=1e-6)


class MPPI(Planner):
    """Samples count by e^{R/λ} instead of being taken or left.

    mean ← Σ w_k a_k and std² ← Σ w_k (a_k − mean)², w = softmax(R/λ) over the elites.
    """

    config: MPPIConfig

    def _search(
        self, evaluate: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        mean = best = start[:, 0].contiguous()
        std = self.std.expand_as(mean).contiguous()
        shape = (config.iterations, len(mean), config.samples, *mean.shape[1:])
        for noise in torch.randn(shape, device=mean.device, generator=generator):
            actions = sample_actions(mean, std, noise, self.low, self.high)
            returns, index = evaluate(actions).topk(config.elites, dim=1)
            elites = actions.gather(1, index[..., None, None].expand(-1, -1, *mean.shape[1:]))
            # Where every elite diverged there is no softmax: they count alike.
            logits = (returns / config.temperature).clamp_min(-1e30)
            weights = torch.softmax(logits, dim=1)[..., None, None]
            mean = (weights * elites).sum(1)
            variance = (weights * (elites - mean[:, None]).square()).sum(1)
            std = torch.maximum(variance.sqrt(), self.min_std)
            best = elites[:, 0]
        return best, mean[:, None]
