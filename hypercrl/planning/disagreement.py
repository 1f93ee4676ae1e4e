"""A reward for what is not known yet: how far the members of an ensemble part.

To plan for it is to explore where models trained on the same data differ because there is little:
Shyam, Jaśkowski and Gomez, "Model-based active exploration", ICML 2019; by the variance of the
members' predictions, as here, Pathak, Gandhi and Gupta, "Self-supervised exploration via
disagreement", ICML 2019, and Sekar et al., "Planning to explore via self-supervised world models",
ICML 2020. These take the members' next states from one and the same state; here every member goes
on from its own, as in any plan, so that a step is worth what they disagree about it and all
before it, and no network is evaluated more often than for a task's plan.
"""

from torch import Tensor


class Disagreement:
    """(1/O) Σ_o ((s'_mo − s̄'_o) / scale_o)² of member m's next state s'_m, s̄' their mean.

    The mean over members, which plans with `planner.risk=mean` are for, is their variance, in the
    units of the model's targets, so that none of the dimensions drowns the others. What all members
    agree about, right or wrong, is worth nothing, and nor is noise that none of them can predict.
    A `Reward` for rollouts under hypotheses, those of one robot together in front.

    Args:
        scale: [O], of a step's change, on the planner's device; ∞ of what has not moved. Where it
            changes in place, so does it here.
        members: M.
    """

    def __init__(self, scale: Tensor, members: int) -> None:
        self.scale = scale
        self.members = members

    def __call__(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:  # noqa: ARG002
        """[B M, ...] of states [B M, ..., O]."""
        each = next_obs.unflatten(0, (-1, self.members))
        away = (each - each.mean(1, keepdim=True)) / self.scale
        return away.square().mean(-1).flatten(0, 1)
