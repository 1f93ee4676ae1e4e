"""Plans that react: the cross-entropy method over linear policies instead of action sequences.

Searching in the parameters of a policy is POPLIN-P of Wang and Ba, "Exploring model-based planning
with policy networks", ICLR 2020; that linear ones do for balancing and walking was shown by Mania,
Guy and Recht, "Simple random search of static linear policies", NeurIPS 2018.

A fixed sequence of actions says nothing about an unstable system far ahead: a disturbance of an
upright pole grows by e every quarter of a second, so nearly all sampled sequences let it fall
within ten steps, and what happens after that has no influence on the search. A policy holds the
pole, and its return over seconds says where the cart should be.
"""

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.planning.planner import Follow, Planner, PlannerConfig, Rollout
from hypercrl.planning.search import Search
from hypercrl_kernels import LinearPolicies, elite_statistics, sample_actions


@dataclass
class PolicySearchConfig(PlannerConfig):
    """Settings of the search for a policy; standard deviations are in units of its gains: half of
    the action range for each standard deviation of the observation."""

    name: str = "policy"
    samples: int = number(100, least=1, help="policies tried in an iteration")
    horizon: int = number(60, least=1, help="steps for which a policy is followed")
    iterations: int = number(2, least=1, most=1000)
    elites: int = number(10, least=1)
    std: float = number(1.0, least=0)


class PolicySearch(Planner):
    """u = clip(middle + half range · (W z + b)), z the standardised observation.

    W and b stand in the rows of a "sequence" [O + 1, A]: what the search finds is carried to the
    next control step as it is.
    """

    follows = True
    config: PolicySearchConfig

    def __init__(self, config: PlannerConfig, low: Tensor, high: Tensor) -> None:
        if config.knots is not None or config.global_share:
            raise ValueError(
                "planner.knots and planner.global_share are of action sequences, and "
                "planner=policy searches for policies: leave them out, or choose cem, icem or mppi"
            )
        super().__init__(config, low, high)
        self.middle = (high + low) / 2
        self.std = torch.full_like(low, config.std)
        self.min_std = torch.full_like(low, config.min_std)
        self.unbounded = torch.full_like(low, torch.inf)

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        super().standardise(mean, scale)
        self.length = len(mean) + 1

    def initial(self, robots: int) -> Tensor:
        """[B, 1, O + 1, A]: the policy that is always in the middle of the action range."""
        return self.low.new_zeros(robots, 1, self.length, len(self.low))

    def imagine(
        self, rollout: Rollout | Follow, obs: Tensor, samples: Tensor
    ) -> tuple[Tensor, Tensor]:
        return cast(Follow, rollout)(obs, self.policies(samples))

    def policies(self, samples: Tensor) -> LinearPolicies:
        """Those of W and b [B, K, O + 1, A], in the units of observations and actions."""
        if self.standards is None:
            raise RuntimeError("call standardise before the first plan")
        mean, scale = self.standards
        # What has not moved has the scale ∞, and no gain.
        gains = (samples[:, :, :-1] * self.half_range).mT / scale
        offsets = samples[:, :, -1] * self.half_range + self.middle
        offsets = offsets - (gains * mean).sum(-1)
        return LinearPolicies(gains, offsets, self.low, self.high, self.config.horizon)

    def first(self, sequence: Tensor, obs: Tensor) -> Tensor:
        return self.policies(sequence[:, None])(obs[:, None])[:, 0]

    def moved_on(self, carried: Tensor) -> Tensor:
        return carried

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return sample_actions(search.mean, search.std, noise, -self.unbounded, self.unbounded)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        elites = elite_statistics(returns, actions, self.config.elites, self.min_std)
        return replace(search, mean=elites.mean, std=elites.std, best=elites.best)
