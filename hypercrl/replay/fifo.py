"""A capped memory of the current task's transitions."""

from typing import Any

import torch
from torch import Tensor

from hypercrl.transitions import Batch, tensor_bytes


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
        self._added = 0

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def bytes(self) -> int:
        """Bytes allocated, full or empty."""
        return tensor_bytes([self.obs, self.action, self.next_obs])

    def add(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> None:
        """Store one transition [O], [A], [O]; the oldest gives way when full."""
        slot = self._added % self.capacity
        self.obs[slot] = obs
        self.action[slot] = action
        self.next_obs[slot] = next_obs
        self._added += 1

    def gather(self, index: Tensor) -> Batch:
        """The transitions at the slots `index` [N]."""
        return Batch(self.obs[index], self.action[index], self.next_obs[index])

    def contents(self) -> Batch:
        """All that is held, oldest slot first; views."""
        n = len(self)
        return Batch(self.obs[:n], self.action[:n], self.next_obs[:n])

    def latest(self, count: int) -> Batch:
        """The `count` newest transitions, the oldest of them first; fewer if no more are held."""
        count = min(count, len(self))
        newest = torch.arange(self._added - count, self._added, device=self.obs.device)
        return self.gather(newest % self.capacity)

    def clear(self) -> None:
        """Forget everything; a new task begins."""
        self._added = 0
        for tensor in (self.obs, self.action, self.next_obs):
            tensor.zero_()

    def state(self) -> dict[str, Any]:
        """The filled part and the count."""
        held = self.contents()
        return {
            "added": self._added,
            "obs": held.obs,
            "action": held.action,
            "next_obs": held.next_obs,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.clear()
        n = len(state["obs"])
        self.obs[:n] = state["obs"]
        self.action[:n] = state["action"]
        self.next_obs[:n] = state["next_obs"]
        self._added = state["added"]
