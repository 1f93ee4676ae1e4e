"""The cross-entropy method over action sequences.

Rubinstein 1999; as model-predictive control in Chua et al. 2018 (PETS), algorithm 1.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from hypercrl.planning.planner import Planner, PlannerConfig
from hypercrl.planning.search import Search
from hypercrl_kernels import elite_statistics, refit_and_sample, sample_actions


@dataclass
class CEMConfig(PlannerConfig):
    """Settings of CEM."""

    name: str = "cem"


class CEM(Planner):
    """A Gaussian is refitted, iteration after iteration, to the best of its own samples."""

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return sample_actions(search.mean, search.std, noise, self.low, self.high)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        elites = elite_statistics(returns, actions, self.config.elites, self.min_std)
        return replace(search, mean=elites.mean, std=elites.std, best=elites.best)

    def advance(
        self, search: Search, returns: Tensor, actions: Tensor, noise: Tensor | None
    ) -> tuple[Search, Tensor | None]:
        own = type(self).sample is CEM.sample and type(self).fit is CEM.fit
        if noise is None or self.config.global_share or not own:
            return super().advance(search, returns, actions, noise)
        config = self.config
        elites, drawn = refit_and_sample(
            returns, actions, config.elites, self.min_std, noise, self.low, self.high
        )
        return replace(search, mean=elites.mean, std=elites.std, best=elites.best), drawn
