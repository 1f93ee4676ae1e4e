"""The two references of every metric: one network trained on and on, and one network per task."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hypercrl.dynamics import DynamicsModel
from hypercrl.methods.base import Batch, Method, MethodConfig, StepReport, tensor_bytes


class _MLPMethod(Method):
    """Trains the dynamics model's weights themselves by Adam on the task loss."""

    def __init__(
        self, model: DynamicsModel, config: MethodConfig, generator: torch.Generator
    ) -> None:
        super().__init__(model, generator)
        self.config = config
        self.networks = nn.ParameterList()

    @abstractmethod
    def _trained_now(self) -> list[nn.Parameter]:
        """The parameters that the current task may move."""

    def _new_optimisers(self) -> list[torch.optim.Adam]:
        parameters = [*self._trained_now(), *self.model.parameters()]
        return [self._adam(parameters, self.config.learning_rate)]

    def training_step(self, batch: Batch) -> StepReport:
        (adam,) = self.optimisers
        adam.zero_grad()
        weights = self.weights(self.tasks - 1)
        loss = self.model.loss(weights, batch.obs, batch.action, batch.next_obs)
        loss.backward()
        norm = clip_grad_norm_(adam.param_groups[0]["params"], self.config.clip_norm)
        adam.step()
        return {
            "loss": loss.detach() / len(batch),
            "regulariser": torch.zeros_like(loss),
            "gradient_norm": norm,
        }

    def memory_bytes(self) -> int:
        """All weights of all tasks."""
        return tensor_bytes(self.parameters())


class Single(_MLPMethod):
    """A fresh network for every task, the old ones frozen: no forgetting, no transfer."""

    def _add_task(self) -> None:
        device = self.model.input_normaliser.mean.device
        initial = self.model.layout.initial(self.generator).to(device)
        self.networks.append(nn.Parameter(initial))

    def _weights(self, task: int) -> Tensor:
        return self.networks[task]

    def _trained_now(self) -> list[nn.Parameter]:
        return [self.networks[-1]]


class Finetune(_MLPMethod):
    """One shared trunk that every task trains on, and a new linear head per task.

    Nothing protects the trunk: an old head meets features that have moved.
    """

    def __init__(
        self, model: DynamicsModel, config: MethodConfig, generator: torch.Generator
    ) -> None:
        super().__init__(model, config, generator)
        trunk = model.layout.initial(generator)[: -model.layout.head_numel]
        self.trunk = nn.Parameter(trunk)

    def _add_task(self) -> None:
        head = self.model.layout.initial(self.generator)[-self.model.layout.head_numel :]
        self.networks.append(nn.Parameter(head.to(self.trunk.device)))

    def _weights(self, task: int) -> Tensor:
        return torch.cat([self.trunk, self.networks[task]])

    def _trained_now(self) -> list[nn.Parameter]:
        return [self.trunk, self.networks[-1]]
