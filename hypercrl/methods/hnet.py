"""HyperCRL: a hypernetwork writes the dynamics model and is held to what it wrote before.

Huang, Xie, Bharadhwaj, Shkurti, "Continual Model-Based Reinforcement Learning with
Hypernetworks", ICRA 2021; regulariser of von Oswald et al., ICLR 2020, equation 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.settings import choice, number
from hypercrl.base.sizes import FLOAT, TRAINED
from hypercrl.dynamics import ACTIVATIONS, ChunkedHypernetwork, Hypernetwork
from hypercrl.dynamics.model import Layers
from hypercrl.methods.base import Method, MethodConfig, StepReport
from hypercrl.methods.clipping import clip_and_step
from hypercrl.methods.hnet_fused import fused_step, why_not_fused
from hypercrl.methods.look_ahead import LookAhead
from hypercrl.replay.transitions import Batch


@dataclass
class HnetConfig(MethodConfig):
    """Settings of the hypernetwork and of its regulariser.

    The mean of R over the draws of `regularised_tasks` is R, so that β keeps its meaning.
    """

    beta: float = number(0.05, least=0, help="β, strength of the regulariser R")
    regularised_tasks: int | None = number(
        None,
        least=1,
        only_with=("beta",),
        help="old tasks, drawn at every step, that R is the mean over; null: all",
    )
    targets: str = choice(
        "renewed",
        "renewed",
        "kept",
        only_with=("beta",),
        help="what R holds: outputs as the present task found them, or as their own left them",
    )
    l1: float = number(0.0, least=0, help="weight of the written weights' absolute values")
    embedding_size: int = number(10, least=1, help="width of a task embedding")
    hidden: list[int] = number(
        [50, 50], least=1, help="width of each hidden layer of the hypernetwork"
    )
    activation: str = choice("elu", *ACTIVATIONS, help="of these layers")
    chunk_size: int | None = number(
        None, least=1, help="weights that are written at a time; null writes all at once"
    )
    chunk_embedding_size: int = number(
        20, least=1, only_with=("chunk_size",), help="width of a chunk's embedding"
    )

    def least_bytes(self, weights: int) -> dict[str, int]:
        """See `MethodConfig`: the last layer, and what it writes for members with its gradient."""
        chunk = min(weights, self.chunk_size or weights)
        last = self.hidden[-1] if self.hidden else self.embedding_size
        needs = {"dynamics.hidden and method.hidden": TRAINED * last * chunk}
        if self.members > 1:
            needs["dynamics.hidden and method.members"] = 2 * FLOAT * weights * self.members
        return needs


FIRM = 0.5
"""β that held a hundred tasks."""


class Hnet(Method):
    """Task embeddings e_t and one hypernetwork h(e, θ); no data of old tasks is kept.

    An ensemble is M embeddings a task, [M, E]: M networks cost M · E numbers. Old ones are rows of
    R like any others, t M of them in place of t.

    While task t is learned, R = (1/t) Σ_{j<t} ‖W*_j − h(e_j, θ + Δθ)‖² holds the outputs for old
    embeddings at the values W*_j they had when t began, or with `targets=kept` when j ended; Δθ is
    the step that Adam is about to take. The embedding follows the task loss alone.
    """

    ensembles = True
    conditionings = ("input", "film")
    config: HnetConfig
    targets: Tensor
    own_terms: ClassVar[str | None] = None
    """What the loss or R of a method has beyond these, which the fused step does not form."""

    def _prepare(self) -> None:
        config, model, generator = self.config, self.model, self.generator
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

    def caution(self, tasks: int) -> str | None:
        """See `Method`: more tasks than were measured to be held at such a width, and what does.

        At width 50 as it ships twenty tasks were held and a hundred were not; with kept targets and
        β = 0.5 a hundred were at width 100, which without these two was too little.
        """
        config = self.config
        if config.chunk_size is not None or not config.hidden:
            return None
        width, kept, firm = config.hidden[-1], config.targets == "kept", config.beta >= FIRM
        if tasks <= (width if kept and firm else width // 2):
            return None
        wide = [] if tasks <= width else [f"method.hidden=[{tasks},{tasks}]"]
        hold = [*["method.targets=kept"] * (not kept), *[f"method.beta={FIRM}"] * (not firm)]
        return (
            f"a hypernetwork of method.hidden={config.hidden} forgets some of {tasks} tasks. Give "
            f"{' '.join([*wide, *hold])} for it to hold them, as it held a hundred; method=single "
            "did, too, in half the bytes, and method=lora in a seventh "
            "(docs/results/many_tasks.md)."
        )

    def begin_task(self) -> None:
        old = self._old_outputs().detach() if self.tasks else None
        if old is not None and self.config.targets == "kept":
            old[: len(self.targets)] = self.targets
        super().begin_task()
        if old is not None:
            self.targets.copy_(old)

    def _old_outputs(self) -> Tensor:
        return self.hypernetwork(_rows(self.embeddings))

    def _add_task(self) -> None:
        width, members = self.config.embedding_size, self.members
        shape = (width,) if members == 1 else (members, width)
        embedding = torch.randn(shape, generator=self.generator)
        self.embeddings.append(nn.Parameter(embedding.to(self.targets)))
        old = (len(self.embeddings) - 1) * members
        self.targets = self.targets.new_empty(old, self.model.layout.numel)

    def _weights(self, task: int) -> Tensor:
        written = self.hypernetwork(_rows([self.embeddings[task]]))
        return written[0] if self.members == 1 else written

    def _old_layers(self) -> list[Layers]:
        """Those that they are held at."""
        return [self.model.layout.split(weights) for weights in self.targets]

    @torch.no_grad()
    def activations(self, task: int, batch: Batch) -> dict[str, list[Tensor]]:
        """See `Method`; "hypernetwork": [T, width] of its layers for the embeddings of T tasks."""
        found = super().activations(task, batch)
        return {**found, "hypernetwork": self.hypernetwork.hidden(_rows(self.embeddings))}

    def _new_optimisers(self) -> list[torch.optim.Adam]:
        theta = self.hypernetwork.theta
        parameters = [theta, *self.model.parameters(), self.embeddings[-1]]
        adam = self._adam(parameters, self.config.learning_rate)
        self.look_ahead = LookAhead(theta, adam)
        self.old = self.targets.new_empty(0, self.config.embedding_size)
        if self.tasks > 1:
            self.old = _rows(list(self.embeddings)[:-1]).detach()
        return [adam]

    def training_step(self, batch: Batch) -> StepReport:
        """The paper's step, with a batch of B; losses are sums over it, and means over members.

        1. Back-propagate the task loss to e_t and θ.
        2. Δθ = the step that Adam would take on θ now.
        3. Back-propagate β B R, taken at θ + Δθ.
        4. Clip both gradients; Adam's step on e_t and on θ.

        The paper steps e_t after 1. R does not see e_t, so that it is the same here.
        """
        (adam,) = self.optimisers
        adam.zero_grad()
        if self.why_not_fused() is None:
            return self._fused_step(batch)
        loss, regulariser = self._gradients(batch)
        norm = self._clip_and_step(adam)
        return {
            "loss": loss.detach() / self._batch_size(batch),
            "regulariser": regulariser,
            "gradient_norm": norm,
        }

    def _gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """1 to 3: set the gradient of every parameter; returns the task loss and R."""
        loss, total = self._losses(self._written_for(batch), batch)
        size = self._batch_size(batch)
        rehearsed = self._rehearse(size)
        (total if rehearsed is None else total + rehearsed).backward()
        regulariser = torch.zeros((), device=loss.device)
        if len(self.targets):
            regulariser = self._regularise(self.config.beta * size)
        return loss, regulariser

    def _written_for(self, batch: Batch) -> Tensor:  # noqa: ARG002
        """[P] weights h(e_t, θ) for a batch, or for each member [M, P], or each window [N, P]."""
        return self.weights(self.tasks - 1)

    def _losses(self, weights: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """The task loss, and with λ times the norm of the written weights."""
        loss, config = self._task_loss(weights, batch), self.config
        if not config.l1:
            return loss, loss
        return loss, loss + config.l1 * self._batch_size(batch) * weights.abs().sum(-1).mean()

    def _regularise(self, strength: float) -> Tensor:
        """2 and 3: add the gradient of strength · R to θ's, old tasks as one batch; returns R."""
        chosen = self._chosen_tasks()
        old = self._old_embeddings(chosen)
        written = self.hypernetwork(old, self.look_ahead.advance())  # h(e_j, θ + Δθ)
        regulariser = self._distance(written, chosen) / len(old)
        (strength * regulariser).backward()
        return regulariser.detach()

    def _chosen_tasks(self) -> Tensor | slice:
        """Rows of `targets`: all members of the old tasks that this step regularises."""
        members = self.members
        old, count = len(self.targets) // members, self.config.regularised_tasks
        if count is None or count >= old:
            return slice(None)
        # Unlike randperm, this waits for no device and can be part of a CUDA graph.
        order = torch.rand(old, generator=self.sampler, device=self.targets.device)
        tasks = order.topk(count).indices
        if members == 1:
            return tasks
        return (members * tasks[:, None] + torch.arange(members, device=tasks.device)).flatten()

    def _old_embeddings(self, rows: Tensor | slice) -> Tensor:
        """[n, E] of these rows, which stay as they are."""
        return self.old[rows]

    def _distance(self, written: Tensor, rows: Tensor | slice) -> Tensor:
        """How far what is written for these rows, [n, P], is from their targets."""
        return F.mse_loss(written, self.targets[rows], reduction="sum")

    def _rehearse(self, size: int) -> Tensor | None:
        """A loss on stored transitions, on the scale of one summed over `size` transitions."""

    def _clip_and_step(self, adam: torch.optim.Adam) -> Tensor:
        """4; returns the norm of the gradient of θ and of the model's own parameters."""
        self._clip_memory()
        memory = set(self.model.memory_parameters())
        others = [p for p in self.model.parameters() if p not in memory]
        theta, embedding = self.hypernetwork.theta, self.embeddings[-1]
        limit = self.config.clip_norm
        return clip_and_step(adam, theta, embedding, others, limit, one_pass=self._on_gpu())

    def why_not_fused(self) -> str | None:
        """Why the next step takes its gradients from autograd; None: it is that of `hnet_fused`."""
        has_memory = bool(self.model.memory_parameters())
        return why_not_fused(self.hypernetwork, self.own_terms, has_memory)

    def _fused_step(self, batch: Batch) -> StepReport:
        """`training_step` with gradients by hand."""
        assert isinstance(self.hypernetwork, Hypernetwork)
        chosen, config = self._chosen_tasks(), self.config
        loss, regulariser, norm = fused_step(
            self.hypernetwork,
            self.optimisers[0],
            self.embeddings[-1],
            self.model,
            batch,
            config.l1,
            self._old_embeddings(chosen),
            self.targets,
            None if isinstance(chosen, slice) else chosen,
            config.beta,
            config.clip_norm,
        )
        return {"loss": loss, "regulariser": regulariser, "gradient_norm": norm}

    def _on_gpu(self) -> bool:
        return self.targets.is_cuda


def _rows(embeddings: Iterable[Tensor]) -> Tensor:
    """[E] of tasks, or [M, E] of their members, one below the other."""
    return torch.cat([e.view(-1, e.shape[-1]) for e in embeddings])
