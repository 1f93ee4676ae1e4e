"""Averaged gradient episodic memory: no step that raises the loss on what is remembered.

Chaudhry et al., "Efficient lifelong learning with A-GEM", ICLR 2019, equation 11.
"""

import torch
from torch import Tensor

from hypercrl.methods.coreset import MemoryMethod


class AGEM(MemoryMethod):
    """g ← g − (gᵀr / rᵀr) r where gᵀr < 0, with r the trunk's gradient on a batch of old data.

    Old heads stay as they are: the loss of the present task has no gradient for them.
    """

    def _protect(self, size: int) -> Tensor | None:
        if not len(self.memory.coreset):
            return None
        trunk = self.network.trunk
        assert trunk.grad is not None
        batch = self.memory.coreset.draw(size, self.sampler)
        loss = self._mixed_losses(batch).sum()
        # Of a network without a hidden layer the trunk is empty, and in no loss.
        (reference,) = torch.autograd.grad(loss, trunk, materialize_grads=True)
        against = (trunk.grad @ reference).clamp_max(0)
        trunk.grad -= against / (reference @ reference).clamp_min(1e-12) * reference
        return loss.detach()
