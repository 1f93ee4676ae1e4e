"""A planner of somebody's own: what it samples and fits is looked at before anything is planned."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hypercrl.planning import Planner, PlannerConfig, Search, make_planner


class Best(Planner):
    """Goes to the best sample."""

    config: PlannerConfig

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return (search.mean[:, None] + noise).clamp(self.low, self.high)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        best = actions[torch.arange(len(actions)), returns.argmax(1)]
        return replace(search, mean=best, best=best)


class Beyond(Best):
    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return search.mean[:, None] + 5 * noise


class First(Best):
    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return super().sample(search, noise)[0]


class Nothing(Best):
    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Any:
        return None


class Diverges(Best):
    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        return replace(search, mean=search.mean / 0)


class Flat(Best):
    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        return replace(search, best=actions[:, 0, 0])


class Remembers(Best):
    """Begins around the best of the plan before."""

    last: Tensor | None = None

    def sample(self, search: Search, noise: Tensor) -> Tensor:
        middle = search.mean if self.last is None else self.last
        return (middle[:, None] + noise).clamp(self.low, self.high)

    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        found = super().fit(search, returns, actions)
        self.last = found.best
        return found


class Draws(Best):
    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return super().sample(search, torch.randn_like(noise))


class Unmade(Best):
    def __init__(self, config: PlannerConfig, low: Tensor, high: Tensor) -> None:
        raise KeyError("policy.pt")


class Ends(Best):
    def sample(self, search: Search, noise: Tensor) -> Tensor:
        raise SystemExit(3)


class Double(Best):
    def sample(self, search: Search, noise: Tensor) -> Tensor:
        return super().sample(search, noise).double()


class DoubleStd(Best):
    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        return replace(super().fit(search, returns, actions), std=search.std.double())


def made(kind: type[Best]) -> Planner:
    config = PlannerConfig(
        f"{__name__}:{kind.__name__}", samples=8, horizon=5, iterations=2, elites=2
    )
    return make_planner(config, -torch.ones(3), torch.ones(3))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unmade, "making it raised KeyError: 'policy.pt'"),
        (Ends, r"trying it called sys.exit\(3\)"),
        (Double, "sample returned numbers of torch.float64, not torch.float32"),
        (DoubleStd, "fit made a std of torch.float64, not torch.float32"),
        (Beyond, "sample returned actions beyond the bounds"),
        (First, r"sample returned \(8, 5, 3\) where \[B, K, H, A\] is \(2, K, 5, 3\)"),
        (Nothing, "trying it raised TypeError"),
        (Diverges, "sample returned numbers that are not finite"),
        (Remembers, "the same search comes to another plan the second time"),
        (Draws, "the same search comes to another plan the second time"),
        (Flat, r"fit made best \(2, 3\) where \[B, H, A\] is \(2, 5, 3\)"),
    ],
)
def test_one_that_cannot_be_followed_is_refused(kind, message):
    assert made(Best).length == 5
    with pytest.raises(ValueError, match=f"^planner={__name__}:{kind.__name__}: {message}"):
        made(kind)
