"""HyperCRL with rehearsal: the hypernetwork also sees a few transitions of every old task."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.methods.coreset import CoresetConfig, TaskMemory
from hypercrl.methods.hnet import Hnet, HnetConfig
from hypercrl.replay.transitions import Batch, tensor_bytes


@dataclass
class HnetReplayConfig(HnetConfig, CoresetConfig):
    """Settings of hnet and of the memory; `beta` 0 is rehearsal alone."""


class HnetReplay(Hnet):
    """Each old task counts as much as the present one; its embedding stays as it is."""

    ensembles = False
    conditionings = ()
    rehearses = True
    own_terms = "old tasks' transitions are rehearsed"
    config: HnetReplayConfig  # type: ignore[reportIncompatibleVariableOverride]

    def _prepare(self) -> None:
        super()._prepare()
        network_bytes = tensor_bytes(self.hypernetwork.parameters())
        self.memory = TaskMemory(self.config, self.model, network_bytes, self.sampler)

    def _rehearse(self, size: int) -> Tensor | None:
        held = len(self.memory.coreset.counts)  # fewer than there are where no room was left
        if not held:
            return None
        batch = self.memory.coreset.draw_from_each(size, self.sampler)
        old = torch.stack(list(self.embeddings)[:held]).detach()
        x = self.model.inputs(batch.obs, batch.action).view(len(old), size, -1)
        outputs = self.model.layout.apply(self.hypernetwork(old), x)
        return self.model.row_losses(
            outputs, batch.obs.view(len(old), size, -1), batch.next_obs.view(len(old), size, -1)
        ).sum()

    def end_task(self, batch: Batch) -> None:
        self.memory.keep(self.model, batch, self.tasks - 1)
