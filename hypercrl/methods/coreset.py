"""Rehearsal of a few stored transitions of every old task; of all of them it is multitask."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hypercrl.base.settings import choice, number, setting
from hypercrl.dynamics import DynamicsModel
from hypercrl.methods.base import MethodConfig
from hypercrl.methods.budget import rows_at_equal_bytes, transition_bytes
from hypercrl.methods.gradient import SharedMethod
from hypercrl.replay import SELECTIONS, Coreset
from hypercrl.replay.transitions import Batch, MixedBatch, tensor_bytes


@dataclass
class CoresetConfig(MethodConfig):
    """How many transitions are kept, and which."""

    per_task: int | None = number(
        None, least=1, help="transitions kept of each old task; null keeps all"
    )
    capacity: int | None = number(
        None,
        least=1,
        only_with=("equal_bytes=false",),
        help="transitions kept of all old tasks together; null is no limit",
    )
    equal_bytes: bool = setting(False, help="capacity is what fits into the bytes hnet keeps")
    selection: str = choice(
        "random",
        *SELECTIONS,
        only_with=("per_task|capacity|equal_bytes",),
        help="how the kept ones are chosen",
    )


class TaskMemory(nn.Module):
    """A coreset filled from the replays of ending tasks, and the batches to rehearse.

    Args:
        config: its size and the selection.
        model: scales the features that transitions are compared by.
        network_bytes: what the method keeps beside it, for equal bytes.
        sampler: of the draws.
    """

    def __init__(
        self,
        config: CoresetConfig,
        model: DynamicsModel,
        network_bytes: int,
        sampler: torch.Generator,
    ) -> None:
        super().__init__()
        capacity = config.capacity
        if config.equal_bytes:
            capacity = rows_at_equal_bytes(model, network_bytes, transition_bytes(model))
        self.select = SELECTIONS[config.selection]
        self.coreset = Coreset(config.per_task, capacity, model.obs_size, model.action_size)
        self.sampler = sampler

    def keep(self, model: DynamicsModel, batch: Batch, task: int) -> None:
        """Choose from all that is held of the task that ends."""
        room = self.coreset.room(task + 1)
        count = len(batch) if room is None else min(room, len(batch))
        change = model.target_normaliser(batch.next_obs - batch.obs)
        features = torch.cat([model.inputs(batch.obs, batch.action), change], -1)
        chosen = batch.at(self.select(features, count, self.sampler))
        label = torch.full((count,), task, device=chosen.obs.device)
        self.coreset.add(MixedBatch(chosen.obs, chosen.action, chosen.next_obs, label))

    def rehearsal(self, size: int) -> tuple[MixedBatch, Tensor] | None:
        """Transitions of all old tasks, with weights [N] that sum to `size` for each task.

        Everything that is held where that is no more than `size` per task on average, else so many
        of each task, drawn at random. None while nothing is held.
        """
        coreset = self.coreset
        tasks = len(coreset.counts)
        if not tasks:
            return None
        if len(coreset) <= size * tasks:
            batch = coreset.all()
            return batch, size / coreset.counts[batch.task]
        batch = coreset.draw_from_each(size, self.sampler)
        return batch, torch.ones_like(batch.obs[:, 0])


class MemoryMethod(SharedMethod):
    """A shared network beside a coreset of every task that has ended."""

    config: CoresetConfig

    def _prepare(self) -> None:
        super()._prepare()
        network_bytes = tensor_bytes(self.network.parameters())
        self.memory = TaskMemory(self.config, self.model, network_bytes, self.sampler)

    def end_task(self, batch: Batch) -> None:
        self.memory.keep(self.model, batch, self.tasks - 1)


class CoresetMethod(MemoryMethod):
    """Every update sees the rows of every old task, each task with the weight of the present one.

    With all data kept (multitask) that is a full batch of every old task. Members of an ensemble
    share the rows.
    """

    ensembles = True
    rehearses = True

    def _rehearse(self, size: int) -> Tensor | None:
        drawn = self.memory.rehearsal(size)
        if drawn is None:
            return None
        batch, weight = drawn
        return weight @ self._mixed_losses(batch)

    def _trained(self) -> list[nn.Parameter]:
        """Old heads too: they follow the trunk."""
        return [self.network.trunk, *self.network.task_parameters()]
