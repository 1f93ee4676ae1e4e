"""How parameters survive a change of task: the interface of every continual-learning method."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hypercrl.dynamics import DynamicsModel
from hypercrl.settings import number

StepReport = dict[str, Tensor]
"""Scalars of one training step, left on the device: loss, regulariser, gradient_norm."""


@dataclass(frozen=True)
class Batch:
    """Transitions of the current task: [N, O], [N, A], [N, O]."""

    obs: Tensor
    action: Tensor
    next_obs: Tensor

    def __len__(self) -> int:
        return len(self.obs)


@dataclass
class MethodConfig:
    """Fields that every method has; a method's own dataclass adds to them."""

    name: str
    learning_rate: float = number(least=0)
    clip_norm: float = number(least=0)


class Method(nn.Module, ABC):
    """Owns every trained parameter; writes the flat weights of the dynamics model for a task.

    Tasks are counted from 0 in the order in which they are begun. A task that has not been begun
    is met with the weights of the latest one: that is what zero-shot transfer measures.

    Args:
        model: the dynamics model the weights are for.
        generator: CPU generator of all initial parameters.
    """

    def __init__(self, model: DynamicsModel, generator: torch.Generator) -> None:
        super().__init__()
        self.model = model
        self.generator = generator
        self.tasks = 0
        self.optimisers: list[torch.optim.Adam] = []

    def begin_task(self) -> None:
        """Prepare for a new task: new parameters, new optimisers."""
        self._add_task()
        self.tasks += 1
        self.optimisers = self._new_optimisers()

    def weights(self, task: int) -> Tensor:
        """[P] weights of the dynamics model for `task`, with gradients recorded."""
        return self._weights(min(task, self.tasks - 1))

    @abstractmethod
    def training_step(self, batch: Batch) -> StepReport:
        """One update on a batch of the current task; never waits for the device."""

    @abstractmethod
    def memory_bytes(self) -> int:
        """Bytes kept for the sake of old and present tasks, beside optimiser state and replay."""

    @abstractmethod
    def _add_task(self) -> None:
        """Create the parameters of one more task (called again, in order, when loading)."""

    @abstractmethod
    def _weights(self, task: int) -> Tensor: ...

    @abstractmethod
    def _new_optimisers(self) -> list[torch.optim.Adam]: ...

    def _adam(self, parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
        parameters = list(parameters)
        on_gpu = parameters[0].is_cuda
        return torch.optim.Adam(parameters, lr=rate, fused=True, capturable=on_gpu)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on: parameters, stored targets, optimiser moments."""
        return {
            "tasks": self.tasks,
            "tensors": dict(self.state_dict()),
            "optimisers": [o.state_dict()["state"] for o in self.optimisers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned into a freshly built method."""
        for _ in range(state["tasks"]):
            self._add_task()
        self.tasks = state["tasks"]
        self.load_state_dict(state["tensors"])
        self.optimisers = self._new_optimisers()
        for optimiser, moments in zip(self.optimisers, state["optimisers"], strict=True):
            by_index = {int(index): values for index, values in moments.items()}
            optimiser.load_state_dict({**optimiser.state_dict(), "state": by_index})


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes held by the tensors."""
    return sum(t.numel() * t.element_size() for t in tensors)
