"""One network that serves every task: by a head of its own, or conditioned on the task."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.dynamics import MLPLayout


class SharedNetwork(nn.Module, ABC):
    """A network whose parameters are shared by the tasks, but for a small part of each task."""

    trunk: nn.Parameter
    """[S] what the tasks share; what a regulariser has to protect."""

    @abstractmethod
    def add_task(self, generator: torch.Generator) -> None:
        """Make the part of one more task, with initial values from a CPU generator."""

    @abstractmethod
    def task_parameters(self) -> list[nn.Parameter]:
        """The part of each task, in order."""

    @abstractmethod
    def weights(self, task: int) -> Tensor:
        """[P] weights of the main network that does what this one does on `task`."""

    @abstractmethod
    def outputs(self, x: Tensor, task: Tensor) -> Tensor:
        """x [N, in] of the tasks `task` [N] → [N, out], all tasks in one pass."""


class MultiHeadNetwork(SharedNetwork):
    """The main network with a last layer for each task.

    Args:
        layout: of the main network.
        generator: CPU generator of the initial weights.
    """

    def __init__(self, layout: MLPLayout, generator: torch.Generator) -> None:
        super().__init__()
        self.layout = layout
        self.trunk = nn.Parameter(layout.initial(generator)[: -layout.head_numel])
        self.heads = nn.ParameterList()

    def add_task(self, generator: torch.Generator) -> None:
        head = self.layout.initial(generator)[-self.layout.head_numel :]
        self.heads.append(nn.Parameter(head.to(self.trunk.device)))

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.heads)

    def weights(self, task: int) -> Tensor:
        return torch.cat([self.trunk, self.heads[task]])

    def outputs(self, x: Tensor, task: Tensor) -> Tensor:
        # All heads on every row: cheaper than to gather a matrix for each row.
        heads = torch.stack(list(self.heads))
        weight, bias = heads.split(self.layout.lengths[-2:], -1)
        size = self.layout.sizes[-1]
        features = self.layout.features(self.trunk, x)
        weight = weight.reshape(-1, features.shape[-1])
        outputs = F.linear(features, weight, bias.flatten()).view(len(x), len(heads), size)
        return outputs.gather(1, task[:, None, None].expand(-1, 1, size))[:, 0]


class ConditionedNetwork(SharedNetwork):
    """The main network with a learned embedding of the task, e ~ N(0, 1) at first, as more inputs.

    For one task the embedding is constant, so that it is nothing but a change of the first bias.

    Args:
        layout: of the main network.
        embedding_size: width E of an embedding.
        generator: CPU generator of the initial weights.
    """

    def __init__(self, layout: MLPLayout, embedding_size: int, generator: torch.Generator) -> None:
        super().__init__()
        inputs, *rest = layout.sizes
        self.layout = MLPLayout([inputs + embedding_size, *rest])
        self.inputs = inputs
        self.embedding_size = embedding_size
        self.trunk = nn.Parameter(self.layout.initial(generator))
        self.embeddings = nn.ParameterList()

    def add_task(self, generator: torch.Generator) -> None:
        embedding = torch.randn(self.embedding_size, generator=generator)
        self.embeddings.append(nn.Parameter(embedding.to(self.trunk.device)))

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.embeddings)

    def weights(self, task: int) -> Tensor:
        (weight, bias), *rest = self.layout.split(self.trunk)
        seen, told = weight[:, : self.inputs], weight[:, self.inputs :]
        layers = [(seen, bias + told @ self.embeddings[task]), *rest]
        return torch.cat([t.flatten() for layer in layers for t in layer])

    def outputs(self, x: Tensor, task: Tensor) -> Tensor:
        embeddings = torch.stack(list(self.embeddings))
        return self.layout.apply(self.trunk, torch.cat([x, embeddings[task]], -1))
