"""HyperCRL: a hypernetwork writes the dynamics model and is held to what it wrote before.

Huang, Xie, Bharadhwaj, Shkurti, "Continual Model-Based Reinforcement Learning with
Hypernetworks", ICRA 2021; regulariser of von Oswald et al., ICLR 2020, equation 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from hypercrl.dynamics import ACTIVATIONS, ChunkedHypernetwork, DynamicsModel, Hypernetwork
from hypercrl.methods.base import Method, MethodConfig, StepReport
from hypercrl.methods.look_ahead import LookAhead
from hypercrl.settings import choice, number
from hypercrl.transitions import Batch


@dataclass
class HnetConfig(MethodConfig):
    """Settings of the hypernetwork and of its regulariser.

    Attributes:
        regularised_tasks: how many old tasks, drawn anew at every step, R is the mean over; None
            is all of them. The mean over the draws is R, so that β keeps its meaning.
    """

    beta: float = number(0.05, least=0)
    regularised_tasks: int | None = number(None, least=1)
    l1: float = number(0.0, least=0)
    embedding_size: int = number(10, least=1)
    hidden: list[int] = number([50, 50], least=1)
    activation: str = choice("elu", *ACTIVATIONS)
    chunk_size: int | None = number(None, least=1)
    chunk_embedding_size: int = number(20, least=1)


class Hnet(Method):
    """Task embeddings e_t and one hypernetwork h(e, θ); no data of old tasks is kept.

    While task t is learned, R = (1/t) Σ_{j<t} ‖W*_j − h(e_j, θ + Δθ)‖² holds the outputs for old
    embeddings at the values W*_j they had when t began; Δθ is the step that Adam is about to take.
    The embedding follows the task loss alone.
    """

    conditionings = ("input", "film")
    config: HnetConfig
    targets: Tensor

    def __init__(
        self,
        model: DynamicsModel,
        config: HnetConfig,
        generator: torch.Generator,
        sampler: torch.Generator,
    ) -> None:
        super().__init__(model, config, generator, sampler)
        inputs = config.embedding_size + model.embedding_inputs
        shared = (model.layout, inputs, config.hidden, config.activation)
        self.hypernetwork = (
            Hypernetwork(*shared, generator)
            if config.chunk_size is None
            else ChunkedHypernetwork(
                *shared, config.chunk_size, config.chunk_embedding_size, generator
            )
        )
        self.embeddings = nn.ParameterList()
        self.register_buffer("targets", torch.empty(0, model.layout.numel))

    def begin_task(self) -> None:
        old = self._old_outputs().detach() if self.tasks else None
        super().begin_task()
        if old is not None:
            self.targets.copy_(old)

    def _old_outputs(self) -> Tensor:
        return self.hypernetwork(torch.stack(list(self.embeddings)))

    def _add_task(self) -> None:
        embedding = torch.randn(self.config.embedding_size, generator=self.generator)
        self.embeddings.append(nn.Parameter(embedding.to(self.targets)))
        self.targets = self.targets.new_empty(len(self.embeddings) - 1, self.model.layout.numel)

    def _weights(self, task: int) -> Tensor:
        return self.hypernetwork(self.embeddings[task][None])[0]

    def _new_optimisers(self) -> list[torch.optim.Adam]:
        theta = self.hypernetwork.theta
        parameters = [theta, *self.model.parameters(), self.embeddings[-1]]
        adam = self._adam(parameters, self.config.learning_rate)
        self.look_ahead = LookAhead(theta, adam)
        return [adam]

    def training_step(self, batch: Batch) -> StepReport:
        config, embedding = self.config, self.embeddings[-1]
        (adam,) = self.optimisers
        adam.zero_grad()

        weights = self._written_for(batch)
        loss = self._task_loss(weights, batch)
        total = loss
        if config.l1:
            total = loss + config.l1 * len(batch) * weights.abs().sum(-1).mean()
        rehearsed = self._rehearse(len(batch))
        (total if rehearsed is None else total + rehearsed).backward()

        regulariser = torch.zeros((), device=loss.device)
        if len(self.targets):
            regulariser = self._regularise(config.beta * len(batch))
        # The embedding has no part in the regulariser, and is clipped on its own.
        clip_grad_norm_([embedding], config.clip_norm)
        self._clip_memory()
        memory = set(self.model.memory_parameters())
        of_model = (p for p in self.model.parameters() if p not in memory)
        theta = [self.hypernetwork.theta, *of_model]
        norm = get_total_norm(_pieces(theta))
        clip_grads_with_norm_(theta, config.clip_norm, norm)
        adam.step()
        return {
            "loss": loss.detach() / len(batch),
            "regulariser": regulariser,
            "gradient_norm": norm,
        }

    def _written_for(self, batch: Batch) -> Tensor:  # noqa: ARG002
        """[P] weights of the present task for a batch, or [N, P], for each window."""
        return self.weights(self.tasks - 1)

    def _regularise(self, strength: float) -> Tensor:
        """Add the gradient of strength · R to θ's; the old tasks are one batch. Returns R."""
        chosen = self._chosen_tasks()
        old = torch.stack(list(self.embeddings)[:-1]).detach()[chosen]
        written = self.hypernetwork(old, self.look_ahead.advance())
        regulariser = self._distance(written, chosen) / len(old)
        (strength * regulariser).backward()
        return regulariser.detach()

    def _chosen_tasks(self) -> Tensor | slice:
        """Index of the old tasks that this step regularises."""
        old, count = len(self.targets), self.config.regularised_tasks
        if count is None or count >= old:
            return slice(None)
        # Unlike randperm, this waits for no device and can be part of a CUDA graph.
        order = torch.rand(old, generator=self.sampler, device=self.targets.device)
        return order.topk(count).indices

    def _distance(self, written: Tensor, tasks: Tensor | slice) -> Tensor:
        """How far what is written for these old tasks, [n, P], is from their targets."""
        return F.mse_loss(written, self.targets[tasks], reduction="sum")

    def _rehearse(self, size: int) -> Tensor | None:
        """A loss on stored transitions, on the scale of one summed over `size` transitions."""


def _pieces(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients, cut up: a CPU adds the squares of millions in float32 to four digits only."""
    return [part for p in parameters if p.grad is not None for part in p.grad.split(1 << 16)]
