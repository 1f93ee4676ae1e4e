"""The cross-entropy method over action sequences.

Rubinstein 1999; as model-predictive control in Chua et al. 2018 (PETS), algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.planning.planner import Planner, PlannerConfig
from hypercrl_kernels import elite_statistics, sample_actions


@dataclass
class CEMConfig(PlannerConfig):
    """Settings of CEM."""

    name: str = "cem"


class CEM(Planner):
    """A Gaussian is refitted, iteration after iteration, to the best of its own samples."""

    def _search(
        self, evaluate: Callable[[Tensor], Tensor], start: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        config = self.config
        mean = best = start[:, 0].contiguous()
        std = self.std.expand_as(mean).contiguous()
        # One draw for all iterations: one kernel where there would be one an iteration.
        shape = (config.iterations, len(mean), config.samples, *mean.shape[1:])
        for noise in torch.randn(shape, device=mean.device, generator=generator):
            actions = sample_actions(mean, std, noise, self.low, self.high)
            mean, std, best = self._fit(evaluate(actions), actions)
        return best, mean[:, None]

    def _fit(self, returns: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From returns [B, K] of actions [B, K, H, A] to the next mean and standard deviation.

        Returns:
            Mean, standard deviation and best sequence, each [B, H, A].
        """
        return elite_statistics(returns, actions, self.config.elites, self.min_std)
