"""One network that serves every task: by a head of its own, or conditioned on the task."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from hypercrl.dynamics import MLPLayout
from hypercrl.dynamics.layout import apply_layers


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
    """The main network with a last layer for each task; of M > 1 members M of both.

    Args:
        layout: of the main network.
        generator: CPU generator of the initial weights.
        members: M. All that is said of shapes here has M in front then, but for the rows x.
    """

    def __init__(self, layout: MLPLayout, generator: torch.Generator, members: int = 1) -> None:
        super().__init__()
        self.layout = layout
        self.members = members
        trunk = layout.initial(generator, members)[..., : -layout.head_numel]
        self.trunk = nn.Parameter(trunk.contiguous())
        self.heads = nn.ParameterList()

    def add_task(self, generator: torch.Generator) -> None:
        head = self.layout.initial(generator, self.members)[..., -self.layout.head_numel :]
        self.heads.append(nn.Parameter(head.to(self.trunk.device)))

    def task_parameters(self) -> list[nn.Parameter]:
        return list(self.heads)

    def weights(self, task: int) -> Tensor:
        return torch.cat([self.trunk, self.heads[task]], -1)

    def outputs(self, x: Tensor, task: Tensor) -> Tensor:
        if self.members > 1:
            x = x.expand(self.members, *x.shape)
        # All heads on every row: cheaper than to gather a matrix for each row.
        heads = torch.stack(list(self.heads), -2)
        weight, bias = heads.split(self.layout.lengths[-2:], -1)
        size = self.layout.sizes[-1]
        features = self.layout.features(self.trunk, x)
        weight = weight.reshape(*heads.shape[:-2], -1, features.shape[-1])
        outputs = apply_layers([(weight, bias.flatten(-2))], features).unflatten(-1, (-1, size))
        index = task[:, None, None].expand(*outputs.shape[:-2], 1, size)
        return outputs.gather(-2, index).squeeze(-2)


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
