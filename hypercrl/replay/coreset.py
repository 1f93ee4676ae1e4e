"""A memory of a few transitions of every task, chosen when the task ends."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hypercrl.replay.transitions import MixedBatch, random_rows


def random_order(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count] rows in random order."""
    order = torch.randperm(len(features), generator=generator, device=generator.device)
    return order[:count]


def k_centre_order(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """[count] rows, each the one farthest from those before it.

    The greedy 2-approximation of the k-centre problem (Gonzalez 1985), from a random first row.
    Where all that is left lies on chosen rows, the first rows left are taken.
    """
    best = torch.randint(len(features), (1,), generator=generator, device=generator.device)[0]
    distance = torch.full_like(features[:, 0], torch.inf)
    taken = torch.zeros_like(distance, dtype=torch.bool)
    chosen = torch.empty(count, dtype=torch.int64, device=features.device)
    for i in range(count):
        chosen[i] = best
        taken[best] = True
        distance = distance.minimum((features - features[best]).square().sum(-1))
        best = _best_left(distance, taken)
    return chosen


def herding_order(
    features: Tensor,
    count: int,
    generator: torch.Generator,  # noqa: ARG001
) -> Tensor:
    """[count] rows whose running mean stays as near as it can to the mean of all.

    Welling, "Herding dynamical weights to learn", ICML 2009; as used in iCaRL, algorithm 4. It
    draws nothing.
    """
    centre, total = features.mean(0), torch.zeros_like(features[0])
    taken = torch.zeros_like(features[:, 0], dtype=torch.bool)
    chosen = torch.empty(count, dtype=torch.int64, device=features.device)
    for i in range(count):
        means = (total + features) / (i + 1)
        best = _best_left(-(means - centre).square().sum(-1), taken)
        chosen[i] = best
        taken[best] = True
        total = total + features[best]
    return chosen


def _best_left(score: Tensor, taken: Tensor) -> Tensor:
    """The row not yet taken of the largest score, also where scores overflow or are alike."""
    return score.nan_to_num().masked_fill(taken, -torch.inf).argmax()


SELECTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "random": random_order,
    "k_centre": k_centre_order,
    "herding": herding_order,
}
"""Per name a function (features [N, F], count ≤ N, generator) → rows [count], the best first.

No row is taken twice, though rows be alike.
"""


class Coreset(nn.Module):
    """The same number of transitions of every task; room is taken once, at the end of a task.

    When `capacity` is used up all tasks shrink alike. Selections put the best first, so that what
    is left of a task is the coreset that a smaller room would have chosen.

    Args:
        per_task: most transitions of one task; None: all there are.
        capacity: most transitions in all; None: no limit.
        obs_size, action_size: widths O and A.
    """

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    task: Tensor
    counts: Tensor

    def __init__(
        self, per_task: int | None, capacity: int | None, obs_size: int, action_size: int
    ) -> None:
        super().__init__()
        self.per_task = per_task
        self.capacity = capacity
        self.register_buffer("obs", torch.zeros(0, obs_size))
        self.register_buffer("action", torch.zeros(0, action_size))
        self.register_buffer("next_obs", torch.zeros(0, obs_size))
        self.register_buffer("task", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("counts", torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.task)

    def room(self, tasks: int) -> int | None:
        """Transitions that each of `tasks` tasks may have; None: any number."""
        shares = [] if self.capacity is None else [self.capacity // tasks]
        shares += [] if self.per_task is None else [self.per_task]
        return min(shares, default=None)

    def add(self, batch: MixedBatch) -> None:
        """Take in the chosen transitions of one more task, the best first."""
        joined = self.all()
        rows = [torch.cat(pair) for pair in zip(_fields(joined), _fields(batch), strict=True)]
        room = self.room(int(rows[3].max()) + 1)
        if room is not None:
            rank = _rank_within_task(rows[3])
            rows = [row[rank < room] for row in rows]
        self.obs, self.action, self.next_obs = rows[:3]
        self.task = rows[3].int()
        self.counts = torch.bincount(rows[3])

    def draw(self, count: int, generator: torch.Generator) -> MixedBatch:
        """`count` transitions of any task at random."""
        return self.at(random_rows(len(self), count, generator))

    def draw_from_each(self, count: int, generator: torch.Generator) -> MixedBatch:
        """`count` transitions of every task at random, task after task."""
        counts = self.counts.repeat_interleave(count, output_size=len(self.counts) * count)
        starts = (self.counts.cumsum(0) - self.counts).repeat_interleave(
            count, output_size=len(counts)
        )
        return self.at(starts + random_rows(counts, len(counts), generator))

    def all(self) -> MixedBatch:
        """Everything held, task after task."""
        return MixedBatch(self.obs, self.action, self.next_obs, self.task.long())

    def at(self, index: Tensor) -> MixedBatch:
        """The transitions at `index` [M]."""
        return MixedBatch(
            self.obs[index], self.action[index], self.next_obs[index], self.task[index].long()
        )


def _fields(batch: MixedBatch) -> list[Tensor]:
    return [batch.obs, batch.action, batch.next_obs, batch.task]


def _rank_within_task(task: Tensor) -> Tensor:
    """[N] of sorted task numbers → [N], 0, 1, 2 … within each task."""
    counts = torch.bincount(task)
    starts = counts.cumsum(0) - counts
    return torch.arange(len(task), device=task.device) - starts[task]
