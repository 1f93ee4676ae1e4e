# own_planner.py
"""CEM with momentum: the distribution moves only part of the way to its elites.

The smoothed updates of de Boer et al., "A tutorial on the cross-entropy method", 2005.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.planning import Planner, PlannerConfig, Search


@dataclass
class MomentumConfig(PlannerConfig):
    """Settings of momentum CEM."""

    momentum: float = number(0.1, least=0, most=1, help="share of the old mean and deviation")


class Momentum(Planner):
    """A Gaussian that follows the best of its own samples."""

    config: MomentumConfig

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        """[B, K, H, A] action sequences from standard normal noise of that shape."""
        sampled = search.mean[:, None] + search.std[:, None] * noise
        return sampled.clamp(self.low, self.high)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        """What the returns [B, K] of the sequences [B, K, H, A] say; nothing waits for a GPU."""
        _, best = returns.topk(self.config.elites, dim=1)  # [B, elites], the best one first
        elites = actions.gather(1, best[..., None, None].expand(-1, -1, *actions.shape[2:]))
        mean = self._smoothed(search.mean, elites.mean(1))
        std = self._smoothed(search.std, elites.std(1, correction=0))
        return replace(search, mean=mean, std=std.clamp_min(self.min_std), best=elites[:, 0])

    def _smoothed(self, old: Tensor, new: Tensor) -> Tensor:
        return self.config.momentum * old + (1 - self.config.momentum) * new
