"""A capped memory of the current task's transitions."""

from typing import Any

import torch
from torch import Tensor

from hypercrl.base.saved import same_kind, same_type
from hypercrl.replay.transitions import Batch, tensor_bytes


class Replay:
    """First in, first out, in tensors that are allocated once and never grow.

    Args:
        capacity: most transitions ever held.
        obs_size, action_size: widths O and A.
        device: where the tensors live.
    """

    def __init__(
        self, capacity: int, obs_size: int, action_size: int, device: torch.device
    ) -> None:
        if capacity < 1:
            raise ValueError(f"the replay needs room for at least one transition, not {capacity}")
        self.capacity = capacity
        self.obs = torch.zeros(capacity, obs_size, device=device)
        self.action = torch.zeros(capacity, action_size, device=device)
        self.next_obs = torch.zeros(capacity, obs_size, device=device)
        self.begins = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._added = 0
        self._next_begins = True

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def bytes(self) -> int:
        """Bytes allocated, full or empty."""
        return tensor_bytes([self.obs, self.action, self.next_obs, self.begins])

    def begin_episode(self) -> None:
        """The next transition does not follow from the latest one."""
        self._next_begins = True

    def add(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Store one transition [O], [A], [O]; the oldest gives way when full."""
        slot = self._added % self.capacity
        self.obs[slot] = obs
        self.action[slot] = action
        self.next_obs[slot] = next_obs
        self.begins[slot] = self._next_begins
        self._next_begins = False
        self._added += 1

    def gather(self, index: Tensor) -> Batch:
        """The transitions at the slots `index` [N], or windows of them at [N, L]."""
        return Batch(self.obs[index], self.action[index], self.next_obs[index])

    def contents(self) -> Batch:
        """All that is held, oldest slot first; views."""
        n = len(self)
        return Batch(self.obs[:n], self.action[:n], self.next_obs[:n])

    def latest(self, count: int) -> Batch:
        """The `count` newest transitions, the oldest of them first; fewer if no more are held."""
        return self.gather(self._by_age()[len(self) - min(count, len(self)) :])

    def episode(self) -> Batch:
        """What is held of the present episode, in order."""
        slots = self._by_age()
        if self._next_begins:
            return self.gather(slots[:0])
        starts = self.begins[slots].nonzero()[:, 0].tolist()
        return self.gather(slots[starts[-1] if starts else 0 :])

    def episodes(self) -> list[Batch]:
        """All that is held, episode by episode; the beginning of the first one may be gone."""
        slots = self._by_age()
        starts = self.begins[slots].nonzero()[:, 0].tolist()
        parts = slots.tensor_split([start for start in starts if start])
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
        starts = (episode[:last] == episode[len(slots) - last :]).nonzero()[:, 0]
        if not len(starts):
            raise ValueError(f"no episode in the replay has {length} transitions")
        drawn = torch.randint(len(starts), (count,), generator=generator, device=slots.device)
        steps = torch.arange(length, device=slots.device)
        return slots[starts[drawn][:, None] + steps]

    def _by_age(self) -> Tensor:
        """Slots of all that is held, the oldest first."""
        numbers = torch.arange(self._added - len(self), self._added, device=self.obs.device)
        return numbers % self.capacity

    def clear(self) -> None:
        """Forget everything; a new task begins."""
        self._added = 0
        self._next_begins = True
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
            "begins": self.begins[: len(held)],
            "next_begins": self._next_begins,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such a replay.
        """
        self.clear()
        self._added = same_type("added", state["added"], int)
        self._next_begins = same_type("next_begins", state["next_begins"], bool)
        if self._added < 0:
            raise ValueError(f"added is {self._added}")
        for name in ("obs", "action", "next_obs", "begins"):
            own = getattr(self, name)[: len(self)]
            own.copy_(same_kind(name, state[name], own))
