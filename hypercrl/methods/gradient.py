"""What all methods have in common that train their networks by gradients of the task loss."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hypercrl.methods.base import Method, StepReport
from hypercrl.methods.networks import MultiHeadNetwork, SharedNetwork
from hypercrl.replay.transitions import Batch, MixedBatch


class GradientMethod(Method):
    """Adam on the task loss, with three places to step in; a new Adam begins with each task.

    `_rehearse` adds a loss on stored data, `_protect` changes the gradients before the step, and
    `_stepped` sees where the step led.
    """

    def training_step(self, batch: Batch) -> StepReport:
        (adam,) = self.optimisers
        adam.zero_grad()
        loss = self._task_loss(self.weights(self.tasks - 1), batch)
        size = self._batch_size(batch)
        rehearsed = self._rehearse(size)
        (loss if rehearsed is None else loss + rehearsed).backward()
        penalty = self._protect(size)
        norm = clip_grad_norm_(adam.param_groups[0]["params"], self.config.clip_norm)
        self._clip_memory()
        adam.step()
        self._stepped()
        parts = [part.detach() for part in (rehearsed, penalty) if part is not None]
        return {
            "loss": loss.detach() / size,
            "regulariser": sum(parts, torch.zeros_like(loss)) / size,
            "gradient_norm": norm,
        }

    def _rehearse(self, size: int) -> Tensor | None:
        """A loss on stored transitions, on the scale of one summed over `size` transitions."""

    def _protect(self, size: int) -> Tensor | None:
        """Change the gradients, which are those of a loss summed over `size` transitions.

        Returns:
            The penalty on that scale, where the change is the gradient of one.
        """

    def _stepped(self) -> None:
        """Adam's step has been taken; the gradients, clipped, are still there."""

    @abstractmethod
    def _trained(self) -> list[nn.Parameter]:
        """The parameters that the current task may move, beside the model's own."""

    def _new_optimisers(self) -> list[torch.optim.Adam]:
        trained = [*self._trained(), *self.model.parameters()]
        return [self._adam(trained, self.config.learning_rate)]


class SharedMethod(GradientMethod):
    """A gradient method with one network for all tasks: multi-headed, unless `_network` differs."""

    def _prepare(self) -> None:
        self.network = self._network()

    def _network(self) -> SharedNetwork:
        return MultiHeadNetwork(self.model.layout, self.generator, self.members)

    def _hold(self, importance: Tensor, anchor: Tensor, strength: float) -> Tensor:
        """The penalty strength · Σ_i importance_i (θ_i − anchor_i)² on the trunk θ.

        Its gradient is added to the trunk's.
        """
        trunk = self.network.trunk
        assert trunk.grad is not None
        pull = strength * importance * (trunk - anchor)
        trunk.grad += 2 * pull
        return (pull * (trunk - anchor)).sum()

    def _mixed_losses(self, batch: MixedBatch) -> Tensor:
        """[N] loss of each transition under its own task, the mean over members."""
        losses = self.model.row_losses(self._mixed_outputs(batch), batch.obs, batch.next_obs)
        return losses if self.members == 1 else losses.mean(0)

    def _mixed_outputs(self, batch: MixedBatch) -> Tensor:
        return self.network.outputs(self.model.inputs(batch.obs, batch.action), batch.task)

    def _add_task(self) -> None:
        self.network.add_task(self.generator)

    def _weights(self, task: int) -> Tensor:
        return self.network.weights(task)

    def _trained(self) -> list[nn.Parameter]:
        """What the loss of the current task has a gradient for."""
        return [self.network.trunk, self.network.task_parameters()[-1]]
