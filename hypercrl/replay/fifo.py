"""A capped memory of the current task's transitions."""

from typing import Any

import torch
from torch import Tensor

from hypercrl.base.saved import same_kind, same_type
from hypercrl.replay.transitions import Batch, tensor_bytes


class Replay:
    """First in, first out, in tensors that are allocated once and never grow.

    N robots that act at once fill N slots at a time, theirs one after the other, so that the
    transitions of one robot lie N slots apart.

    Args:
        capacity: most transitions ever held; what does not divide by N is not used.
        obs_size, action_size: widths O and A.
        device: where the tensors live.
        robots: N.
    """

    def __init__(
        self,
        capacity: int,
        obs_size: int,
        action_size: int,
        device: torch.device,
        robots: int = 1,
    ) -> None:
        if capacity < robots:
            raise ValueError(
                "the replay needs room for at least one transition"
                + (f" of each of {robots} robots" if robots > 1 else "")
                + f", not {capacity}"
            )
        capacity -= capacity % robots
        self.capacity = capacity
        self.robots = robots
        self.obs = torch.zeros(capacity, obs_size, device=device)
        self.action = torch.zeros(capacity, action_size, device=device)
        self.next_obs = torch.zeros(capacity, obs_size, device=device)
        self.begins = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._added = 0
        self._next_begins = [True] * robots

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def bytes(self) -> int:
        """Bytes allocated, full or empty."""
        return tensor_bytes([self.obs, self.action, self.next_obs, self.begins])

    def begin_episode(self, robot: int = 0) -> None:
        """The next transition of this robot does not follow from its latest one."""
        self._next_begins[robot] = True

    def add(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Store one transition of each robot, [N, O], [N, A], [N, O]; the oldest give way when
        full."""
        first = self._added % self.capacity
        slots = slice(first, first + self.robots)
        self.obs[slots] = obs
        self.action[slots] = action
        self.next_obs[slots] = next_obs
        self.begins[slots] = torch.tensor(self._next_begins)
        self._next_begins = [False] * self.robots
        self._added += self.robots

    def gather(self, index: Tensor) -> Batch:
        """The transitions at the slots `index` [N], or windows of them at [N, L]."""
        return Batch(self.obs[index], self.action[index], self.next_obs[index])

    def contents(self) -> Batch:
        """All that is held, oldest slot first; views."""
        n = len(self)
        return Batch(self.obs[:n], self.action[:n], self.next_obs[:n])

    def latest(self, count: int) -> Batch:
        """The `count` newest transitions, the oldest of them first; fewer if no more are held."""
        return self.gather(self._by_age().flatten()[len(self) - min(count, len(self)) :])

    def latest_episodes(self, count: int) -> list[Batch]:
        """The `count` newest transitions, see `latest`, by episode; of one robot."""
        slots = self._by_age()[:, 0][len(self) - min(count, len(self)) :]
        return [self.gather(part) for part in self._split(slots) if len(part)]

    def present_episodes(self) -> list[Batch]:
        """What is held of the present episode of each robot, in order."""
        return [
            self.gather(slots[:0] if begins else self._split(slots)[-1])
            for slots, begins in zip(self._by_age().T, self._next_begins, strict=True)
        ]

    def episodes(self) -> list[Batch]:
        """All that is held, robot by robot and episode by episode; the beginning of a robot's first
        one may be gone."""
        parts = [part for slots in self._by_age().T for part in self._split(slots)]
        return [self.gather(part) for part in parts if len(part)]

    def windows(self, generator: torch.Generator, count: int, length: int) -> Tensor:
        """Slots [count, length] of random windows: consecutive transitions of one episode.

        Every window that there is has the same chance; `gather` fetches them.

        Raises:
            ValueError: no episode is that long.
        """
        slots = self._by_age()
        episode = self.begins[slots].cumsum(0)
        last = max(len(slots) - length + 1, 0)
        starts = (episode[:last] == episode[len(slots) - last :]).nonzero()
        if not len(starts):
            raise ValueError(f"no episode in the replay has {length} transitions")
        drawn = torch.randint(len(starts), (count,), generator=generator, device=slots.device)
        first, robot = starts[drawn].split(1, 1)
        return slots[first + torch.arange(length, device=slots.device), robot]

    def successors(self) -> Tensor:
        """[len] of each slot the one with the next transition of its episode, −1 where none is
        held: the episode was over, or nothing has come since."""
        slots = self._by_age()
        following = torch.full((len(self),), -1, device=slots.device)
        following[slots[:-1]] = slots[1:].masked_fill(self.begins[slots[1:]], -1)
        return following

    def _by_age(self) -> Tensor:
        """Slots of all that is held, the oldest first, [len / N, N]."""
        numbers = torch.arange(self._added - len(self), self._added, device=self.obs.device)
        return (numbers % self.capacity).view(-1, self.robots)

    def _split(self, slots: Tensor) -> tuple[Tensor, ...]:
        """One robot's slots, by the episodes that begin in them."""
        starts = self.begins[slots].nonzero()[:, 0].tolist()
        return slots.tensor_split([start for start in starts if start])

    def forget_latest(self, count: int) -> None:
        """Forget the `count` newest transitions, a multiple of N, or all if there are no more; what
        comes next follows from nothing."""
        kept = self._by_age().flatten()[: max(len(self) - count, 0)]
        for tensor in (self.obs, self.action, self.next_obs, self.begins):
            tensor[: len(kept)] = tensor[kept]
        self._added = len(kept)
        self._next_begins = [True] * self.robots

    def clear(self) -> None:
        """Forget everything; a new task begins."""
        self._added = 0
        self._next_begins = [True] * self.robots
        for tensor in (self.obs, self.action, self.next_obs, self.begins):
            tensor.zero_()

    def state(self) -> dict[str, Any]:
        """The filled part, the count, and where episodes begin."""
        held = self.contents()
        return {
            "added": self._added,
            "obs": held.obs,
            "action": held.action,
            "next_obs": held.next_obs,
            "begins": self.begins[: len(self)],
            "next_begins": self._next_begins,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such a replay.
        """
        self.clear()
        self._added = same_type("added", state["added"], int)
        self._next_begins = same_type("next_begins", state["next_begins"], list[bool])
        if self._added < 0 or self._added % self.robots:
            raise ValueError(f"added is {self._added}")
        if len(self._next_begins) != self.robots:
            raise ValueError(f"it is of {len(self._next_begins)} robots, not of {self.robots}")
        for name in ("obs", "action", "next_obs", "begins"):
            own = getattr(self, name)[: len(self)]
            own.copy_(same_kind(name, state[name], own))
