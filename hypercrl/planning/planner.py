"""What every sampling planner shares: its settings, and the search."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import cast, get_args

import torch
from torch import Tensor

from hypercrl.base.settings import choice, number, setting
from hypercrl.planning.knots import INTERPOLATIONS, Knots
from hypercrl.planning.returns import Returns, Reward, Termination, trajectory_returns
from hypercrl.planning.risk import RISKS, risk_measure
from hypercrl.planning.search import Iteration, Search, Stop, Watch
from hypercrl_kernels import LinearPolicies, Precision

Rollout = Callable[[Tensor, Tensor], Tensor]
"""(obs [B, O], actions [B, K, H, A]) → states [B, K, H + 1, O], the start included."""

Follow = Callable[[Tensor, LinearPolicies], tuple[Tensor, Tensor]]
"""(obs [B, O], policies) → states [B, K, H + 1, O], the start included, and the actions
[B, K, H, A] that the policies took."""


@dataclass
class PlannerConfig:
    """Settings of every planner; standard deviations are in units of half the action range.

    What plans are rolled out with beside the learned model, see `hypercrl.training.oracle`; of a
    precision, `hypercrl_kernels.Precision`; what is watched, `Iteration`.
    """

    name: str = setting(help="set by planner=NAME")
    samples: int = number(200, least=1, help="action sequences tried in an iteration")
    horizon: int = number(20, least=1, help="steps of a sequence")
    iterations: int = number(
        3, least=1, most=1000, help="times that the Gaussian is refitted in a search"
    )
    elites: int = number(20, least=1, help="the best samples, which it is refitted to")
    std: float = number(0.7, least=0, help="standard deviation that a search begins with")
    min_std: float = number(0.05, least=0, help="least standard deviation after a refit")
    knots: int | None = number(
        None, least=1, help="actions that are searched, sequences going through them; null is all"
    )
    interpolation: str = choice(
        "linear",
        *INTERPOLATIONS,
        only_with=("knots",),
        help="how a sequence goes from knot to knot",
    )
    global_share: float = number(
        0.0,
        least=0,
        most=0.9,
        help="share of the samples that are drawn evenly over the whole action range",
    )
    warm_start: bool = setting(True, help="begin at the last plan, moved on by one step")
    execute: str = choice(
        "mean", "mean", "best", help="what acts: the mean of the last elites, or the best sample"
    )
    dynamics: str = choice(
        "model", "model", "simulator", help="what plans are rolled out with; simulator: the oracle"
    )
    precision: str | None = choice(
        None,
        *get_args(Precision),
        only_with=("dynamics=model",),
        help="of the model's products; null: bf16 where the device has it, else float32",
    )
    sampled: bool = setting(
        False, help="roll out states drawn from a probabilistic model, not its mean ones"
    )
    propagation: str = choice(
        "tsinf",
        "tsinf",
        "ts1",
        help="of an ensemble: a trajectory follows one member (TS∞), or another at each step (TS1)",
    )
    risk: str = choice(
        "mean",
        *RISKS,
        help="what counts of a sequence's returns under the members of an ensemble",
    )
    risk_alpha: float = number(
        0.4,
        least=0.001,
        most=1,
        only_with=("risk=cvar",),
        help="cvar: share of the worst that it is the mean over",
    )
    risk_beta: float = number(
        1.0,
        least=0,
        only_with=("risk=penalty",),
        help="penalty: standard deviations taken off the mean",
    )
    watch: bool = setting(
        False,
        only_with=("dynamics=model",),
        help="log what the last iteration of a search came to, medians over plans",
    )


class Planner(ABC):
    """Plans for B robots in one call; a pure function of its arguments and the generator.

    A planner is `sample` and `fit`: how to draw action sequences from what is known, and what to
    learn from their returns. Neither waits for the device, so that a plan can be one CUDA graph.

    A search starts from N action sequences, the `start` [B, N, H, A]: the mean of its first
    samples, and whatever else the planner carries from one control step to the next.

    Args:
        config: sizes of the search.
        low, high: [A] action bounds; every sample is clipped to them.

    Raises:
        ValueError: a setting that cannot work, named.
    """

    carried = 1
    """N, sequences carried from one control step to the next."""

    follows = False
    """Whether it searches for policies, and imagines with `Follow` instead of `Rollout`."""

    def __init__(self, config: PlannerConfig, low: Tensor, high: Tensor) -> None:
        if config.elites > config.samples:
            raise ValueError(
                f"planner.elites must be at most planner.samples={config.samples}, "
                f"not {config.elites}"
            )
        self.config = config
        self.precision: Precision | None = cast(Precision | None, config.precision)
        self.low = low
        self.high = high
        self.half_range = (high - low) / 2
        self._risk = risk_measure(config.risk, config.risk_alpha, config.risk_beta)
        self.knots = _knots(config, low, high)
        self.length = config.horizon if config.knots is None else config.knots
        self.standards: tuple[Tensor, Tensor] | None = None
        self.std = config.std * self.half_range
        self.min_std = config.min_std * self.half_range

    def standardise(self, mean: Tensor, scale: Tensor) -> None:
        """Say how observations are standardised, (x − mean) / scale, to planners that look at them.

        Args:
            mean, scale: [O], on the planner's device; where they change in place, so do they here.
        """
        self.standards = mean, scale

    def initial(self, robots: int) -> Tensor:
        """[B, N, H, A]: the middle of the action range at every step."""
        middle = (self.high + self.low) / 2
        return middle.expand(robots, self.carried, self.length, -1).clone()

    @torch.no_grad()
    def plan(
        self,
        rollout: Rollout | Follow,
        reward: Reward,
        obs: Tensor,
        start: Tensor,
        generator: torch.Generator,
        probabilities: Tensor | None = None,
        termination: Termination | None = None,
        watch: Watch | None = None,
        stop: Stop | None = None,
        returns: Returns | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Search from `start` for the action sequence with the largest return.

        Args:
            rollout: the model; reward: the task's batched reward.
            obs: [B, O] where the robots are.
            start: [B, N, H, A] where the search starts.
            probabilities: [B, M] of M hypotheses about each robot. What the return of a sequence
                is over them is said by `planner.risk`, and `rollout` is of B M robots, those of
                one robot together.
            termination: of the task; None: its episodes do not end.
            watch: called with what each iteration came to.
            stop: asked before every iteration but the first; the search ends where it says so.
            returns: of trajectories, such as discounted ones with a value behind them; None: their
                rewards' undiscounted sum up to the termination, by `trajectory_returns`.

        Returns:
            The action [B, A] to execute now and the start [B, N, H, A] of the next search: what
            this one found moved one step on, or the middle of the range without warm start.
        """

        if returns is None:
            returns = partial(trajectory_returns, reward=reward, termination=termination)

        def evaluate(actions: Tensor) -> Tensor:
            if probabilities is None:
                return returns(*self.imagine(rollout, obs, actions))
            hypotheses = probabilities.shape[1]
            starts, each = (x.repeat_interleave(hypotheses, 0) for x in (obs, actions))
            return self._risk(returns(*self.imagine(rollout, starts, each)), probabilities)

        found = self._search(evaluate, start, generator, watch, stop)
        action = self.first(found.mean if self.config.execute == "mean" else found.best, obs)
        if not self.config.warm_start:
            return action, self.initial(len(obs))
        return action, self.moved_on(found.carried)

    def imagine(
        self, rollout: Rollout | Follow, obs: Tensor, samples: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States [B, K, H + 1, O] and actions [B, K, H, A] that samples [B, K, H, A] lead to.

        With knots, samples are [B, K, knots, A].
        """
        actions = samples if self.knots is None else self.knots.actions(samples)
        return cast(Rollout, rollout)(obs, actions), actions

    def first(self, sequence: Tensor, obs: Tensor) -> Tensor:  # noqa: ARG002
        """The action [B, A] now, of what a search found, [B, H, A]."""
        return sequence[:, 0]

    def moved_on(self, carried: Tensor) -> Tensor:
        """[B, N, H, A] one control step later: the last action is repeated."""
        if self.knots is not None:
            return self.knots.moved_on(carried)
        return torch.cat([carried[:, :, 1:], carried[:, :, -1:]], dim=2)

    def _search(
        self,
        evaluate: Callable[[Tensor], Tensor],
        start: Tensor,
        generator: torch.Generator,
        watch: Watch | None,
        stop: Stop | None,
    ) -> Search:
        """The loop; `evaluate` maps actions [B, K, H, A] to returns [B, K]."""
        mean = start[:, 0].contiguous()
        search = Search(mean, self.std.expand_as(mean).contiguous(), mean, start[:, 1:])
        noises = self.noise(len(start), generator)
        # Of noise that has been drawn as a whole the next iteration's is known.
        following = [*noises[1:], None] if isinstance(noises, Tensor) else repeat(None)
        drawn: Tensor | None = None
        for noise, next_noise in zip(noises, following, strict=False):
            if search.iteration and stop is not None and stop():
                break
            actions = self._draw(search, noise) if drawn is None else drawn
            returns = evaluate(actions)
            fitted, drawn = self.advance(search, returns, actions, next_noise)
            fitted = replace(fitted, iteration=search.iteration + 1)
            if watch is not None:
                watch(self._seen(search, fitted, returns))
            search = fitted
        return search

    def noise(self, robots: int, generator: torch.Generator) -> Iterable[Tensor]:
        """Standard normal noise [B, K, H, A] of each iteration: all that is random in a search."""
        config = self.config
        # One draw for all iterations: one kernel where there would be one an iteration.
        shape = (config.iterations, robots, config.samples, self.length, len(self.low))
        return torch.randn(shape, device=self.low.device, generator=generator)

    def _draw(self, search: Search, noise: Tensor) -> Tensor:
        """[B, K, H, A]: the planner's own samples, behind those over the whole range if any are.

        Of standard normal noise z the latter are low + (high − low) Φ(z), uniform whatever the
        search has found: what lies beyond the reach of a Gaussian that has narrowed is tried in
        every iteration. Local samples mixed with such, with independent knots in place of paths
        through a graph of drawn ones, are those of Le et al., "Model tensor planning", 2025.
        """
        far = int(self.config.global_share * noise.shape[1])
        if not far:
            return self.sample(search, noise)
        spanning = self.low + (self.high - self.low) * torch.special.ndtr(noise[:, :far])
        return torch.cat([spanning, self.sample(search, noise[:, far:].contiguous())], 1)

    @abstractmethod
    def sample(self, search: Search, noise: Tensor) -> Tensor:
        """The action sequences to roll out next, [B, K, H, A], between the bounds.

        Args:
            noise: of this iteration, see `noise`.
        """

    @abstractmethod
    def fit(self, search: Search, returns: Tensor, actions: Tensor) -> Search:
        """Where the search stands after this iteration: `search` with what has changed replaced.

        Args:
            returns: [B, K], none of them NaN; actions: [B, K, H, A], what was sampled.
        """

    def advance(
        self,
        search: Search,
        returns: Tensor,
        actions: Tensor,
        noise: Tensor | None,  # noqa: ARG002
    ) -> tuple[Search, Tensor | None]:
        """`fit`, and what `sample` would draw after it where a planner gets both in one go.

        Args:
            noise: of the next iteration; None after the last one, and where it is not drawn yet.

        Returns:
            The search, and the next samples [B, K, H, A] or None.
        """
        return self.fit(search, returns, actions), None

    def _seen(self, before: Search, after: Search, returns: Tensor) -> Iteration:
        elites = returns.topk(self.config.elites, dim=1).values
        spread = (after.std / self.half_range).mean((1, 2))
        shift = ((after.mean - before.mean) / self.half_range).square().mean((1, 2)).sqrt()
        return Iteration(elites.mean(1), elites[:, 0], spread, shift)


def _knots(config: PlannerConfig, low: Tensor, high: Tensor) -> Knots | None:
    count, horizon = config.knots, config.horizon
    if count is None:
        return None
    if count > horizon:
        raise ValueError(
            f"planner.knots must be at most planner.horizon={horizon}, or null, not {count}"
        )
    return Knots(count, horizon, config.interpolation, low, high)
