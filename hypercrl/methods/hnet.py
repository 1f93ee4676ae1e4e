"""HyperCRL: a hypernetwork writes the dynamics model and is held to what it wrote before.

Huang, Xie, Bharadhwaj, Shkurti, "Continual Model-Based Reinforcement Learning with
Hypernetworks", ICRA 2021; regulariser of von Oswald et al., ICLR 2020, equation 2.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_, clip_grads_with_norm_, get_total_norm

from hypercrl.base.settings import choice, number
from hypercrl.dynamics import ACTIVATIONS, ChunkedHypernetwork, DynamicsModel, Hypernetwork
from hypercrl.methods.base import Method, MethodConfig, StepReport
from hypercrl.methods.look_ahead import LookAhead, clipped_step, moments_of, settings_of
from hypercrl.replay.transitions import Batch
from hypercrl_kernels.training import MOST_TASKS, adam_ahead, regularised_head


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
    fused = True
    """Whether R and the task loss are just these, so that one kernel can form their gradient."""

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

        if self._fuses():
            loss, regulariser = self._fused_gradients(batch)
        else:
            loss, regulariser = self._gradients(batch)
        self._clip_memory()
        memory = set(self.model.memory_parameters())
        theta = self.hypernetwork.theta
        others = [p for p in self.model.parameters() if p not in memory]
        norm = get_total_norm(_pieces([theta, *others]))
        # The embedding has no part in the regulariser, and is clipped on its own.
        if self._on_gpu():
            self._step_in_one_pass(norm, others)
        else:
            clip_grad_norm_([embedding], config.clip_norm)
            clip_grads_with_norm_([theta, *others], config.clip_norm, norm)
            adam.step()
        return {
            "loss": loss.detach() / len(batch),
            "regulariser": regulariser,
            "gradient_norm": norm,
        }

    def _written_for(self, batch: Batch) -> Tensor:  # noqa: ARG002
        """[P] weights of the present task for a batch, or [N, P], for each window."""
        return self.weights(self.tasks - 1)

    def _step_in_one_pass(self, norm: Tensor, others: list[nn.Parameter]) -> None:
        """Clip and step, one kernel a parameter; the gradients themselves stay as they are.

        `others` are the model's parameters that count in the norm.
        """
        (adam,), limit = self.optimisers, self.config.clip_norm
        theta, embedding = self.hypernetwork.theta, self.embeddings[-1]
        assert embedding.grad is not None
        clipped_step(adam, embedding, torch.linalg.vector_norm(embedding.grad), limit)
        clipped_step(adam, theta, norm, limit)
        if others:
            clip_grads_with_norm_(others, limit, norm)
        if list(self.model.parameters()):
            with _left_out([theta, embedding]):
                adam.step()

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Set the gradient of every parameter; returns the task loss and R."""
        weights = self._written_for(batch)
        loss = self._task_loss(weights, batch)
        total = loss + self._sparsity(weights, batch) if self.config.l1 else loss
        rehearsed = self._rehearse(len(batch))
        (total if rehearsed is None else total + rehearsed).backward()
        regulariser = torch.zeros((), device=loss.device)
        if len(self.targets):
            regulariser = self._regularise(self.config.beta * len(batch))
        return loss, regulariser

    def _sparsity(self, weights: Tensor, batch: Batch) -> Tensor:
        return self.config.l1 * len(batch) * weights.abs().sum(-1).mean()

    def _on_gpu(self) -> bool:
        return self.targets.is_cuda

    def _fuses(self) -> bool:
        """Whether this step's last layer is one kernel: on CUDA, for the full hypernetwork."""
        return (
            self.fused
            and not self.model.memory_parameters()
            and self._on_gpu()
            and 0 < len(self.targets) <= MOST_TASKS
            and isinstance(self.hypernetwork, Hypernetwork)
            and self.hypernetwork.trunk_numel > 0
        )

    def _fused_gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """`_gradients`, but the last layer of the hypernetwork is read once instead of six times.

        θ is its trunk and its last layer: autograd sees the trunk, and the loss as a function of
        the written weights. What is between is linear.
        """
        net, config = self.hypernetwork, self.config
        assert isinstance(net, Hypernetwork)
        theta, cut = net.theta, net.trunk_numel
        (adam,) = self.optimisers
        moments, settings = moments_of(adam, theta), settings_of(adam)
        theta.grad = torch.empty_like(theta)
        trunk, head = theta.detach().tensor_split([cut])
        trunk.requires_grad_().grad = theta.grad[:cut].zero_()
        weight, bias = net.layout.split(theta.detach())[-1]

        hidden = net.features(self.embeddings[-1][None], trunk)
        weights = torch.addmm(bias, hidden.detach(), weight.mT)[0].requires_grad_()
        loss = self._task_loss(weights, batch)
        (loss + self._sparsity(weights, batch) if config.l1 else loss).backward()
        assert trunk.grad is not None
        assert weights.grad is not None
        hidden.backward(weights.grad[None] @ weight)

        ahead = adam_ahead(trunk.detach(), trunk.grad, moments.part(0, cut), settings)
        ahead.requires_grad_().grad = trunk.grad
        chosen = self._chosen_tasks()
        old = torch.stack(list(self.embeddings)[:-1]).detach()[chosen]
        old_hidden = net.features(old, ahead)
        regulariser, old_gradient = regularised_head(
            head,
            theta.grad[cut:],
            moments.part(cut),
            settings,
            weights.grad,
            hidden.detach()[0],
            old_hidden.detach(),
            self.targets,
            None if isinstance(chosen, slice) else chosen,
            config.beta * len(batch),
        )
        old_hidden.backward(old_gradient)
        return loss, regulariser

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


@contextmanager
def _left_out(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Optimisers pass over a parameter without a gradient."""
    gradients = [p.grad for p in parameters]
    for p in parameters:
        p.grad = None
    yield
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = gradient


def _pieces(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients, cut up: a CPU adds the squares of millions in float32 to four digits only."""
    return [part for p in parameters if p.grad is not None for part in p.grad.split(1 << 16)]
