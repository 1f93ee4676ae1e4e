"""A capped memory of a stream of transitions of one task after another."""

import torch
from torch import Tensor, nn

from hypercrl.replay.transitions import Batch, MixedBatch, random_rows

POLICIES = ("reservoir", "fifo")


class StreamStore(nn.Module):
    """Keeps `capacity` transitions of all there ever were, in buffers allocated once.

    "reservoir": every transition of the stream is held with the same probability (Vitter 1985,
    algorithm R). "fifo": the latest are held.

    Args:
        capacity: most transitions ever held.
        obs_size, action_size: widths O and A.
        extra_size: numbers kept beside each transition, such as a network's outputs.
        policy: "reservoir" or "fifo".
        generator: of all draws; on the device that the store is moved to.
    """

    obs: Tensor
    action: Tensor
    next_obs: Tensor
    extra: Tensor
    task: Tensor
    seen: Tensor

    def __init__(
        self,
        capacity: int,
        obs_size: int,
        action_size: int,
        extra_size: int,
        policy: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.capacity = capacity
        self.policy = policy
        self.generator = generator
        widths = {"obs": obs_size, "action": action_size, "next_obs": obs_size, "extra": extra_size}
        for name, width in widths.items():
            self.register_buffer(name, torch.zeros(capacity, width))
        self.register_buffer("task", torch.zeros(capacity, dtype=torch.int32))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.seen), self.capacity)

    def add(self, batch: Batch, task: int, extra: Tensor) -> None:
        """Offer transitions of task `task`, in order, with `extra` [N, extra_size] beside them."""
        slots = self._slots(int(self.seen), len(batch))
        # A slot may be given away twice in one call; the later transition has it.
        winners = {slot: row for row, slot in enumerate(slots) if slot < self.capacity}
        rows = torch.tensor(list(winners.values()), dtype=torch.int64, device=self.obs.device)
        index = torch.tensor(list(winners), dtype=torch.int64, device=self.obs.device)
        self.obs[index] = batch.obs[rows].to(self.obs)
        self.action[index] = batch.action[rows].to(self.action)
        self.next_obs[index] = batch.next_obs[rows].to(self.next_obs)
        self.extra[index] = extra[rows].to(self.extra)
        self.task[index] = task
        self.seen += len(batch)

    def _slots(self, seen: int, count: int) -> list[int]:
        """Where each of the next `count` transitions goes; `capacity` or more is nowhere."""
        numbers = torch.arange(seen, seen + count, device=self.generator.device)
        if self.policy == "fifo":
            return (numbers % self.capacity).tolist()
        drawn = torch.rand(
            count, generator=self.generator, device=self.generator.device, dtype=torch.float64
        )
        anywhere = (drawn * (numbers + 1)).long()
        return torch.where(numbers < self.capacity, numbers, anywhere).tolist()

    def draw(self, count: int) -> tuple[MixedBatch, Tensor, Tensor]:
        """`count` transitions at random, without waiting for the device.

        Returns:
            the transitions, their extra numbers [count, extra_size], and a weight that is 1, or 0
            as long as nothing is held.
        """
        held = self.seen.clamp_max(self.capacity)
        index = random_rows(held, count, self.generator)
        batch = MixedBatch(
            self.obs[index], self.action[index], self.next_obs[index], self.task[index].long()
        )
        return batch, self.extra[index], (held > 0).to(self.obs)
