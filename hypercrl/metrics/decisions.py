"""How right an agent was that decided itself when its task had changed, and to which one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Decision:
    """The agent has changed its mind.

    Attributes:
        env_step: when.
        task: the true task at that time, from 0; the agent never sees it.
        chosen: the task inferred, in effect from now on, as it counts them.
        new: it has made that one for the occasion.
    """

    env_step: int
    task: int
    chosen: int
    new: bool


def score_decisions(
    decisions: Sequence[Decision], boundaries: Sequence[int], identities: Sequence[int]
) -> dict[str, float | int | None]:
    """How well decisions fit the true boundaries.

    A decision is right if it is the first within a true task and makes a new task where the true
    one is new, or goes back to the one that was made for it where it is not. A task that follows
    itself goes on: nothing changes there, and there is nothing to notice.

    Args:
        boundaries: environment step at which each true task but the first began.
        identities: of each true task; those that are the same have the same number.

    Returns:
        decisions: how many there were; precision: share of them that were right; recall: share of
        the changes that were noticed by a right one; delay: environment steps from change to
        right decision, the mean. None where undefined.
    """
    made_for = {identities[0]: 0}
    changes = [
        task for task in range(1, len(identities)) if identities[task] != identities[task - 1]
    ]
    delays = []
    for task, following in pairwise([*changes, len(identities)]):
        first = next((d for d in decisions if task <= d.task < following), None)
        if first is None:
            continue
        wanted = made_for.get(identities[task])
        if first.new if wanted is None else first.chosen == wanted:
            delays.append(first.env_step - boundaries[task - 1])
            made_for[identities[task]] = first.chosen
    return {
        "decisions": len(decisions),
        "precision": len(delays) / len(decisions) if decisions else None,
        "recall": len(delays) / len(changes) if changes else None,
        "delay": sum(delays) / len(delays) if delays else None,
    }
