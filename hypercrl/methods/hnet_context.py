"""HyperCRL whose hypernetwork reads a memory's context beside the task embedding."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl.base.errors import UserError
from hypercrl.dynamics.context_model import ContextModel
from hypercrl.dynamics.model import PlanningLayers
from hypercrl.methods.hnet import Hnet
from hypercrl.replay.transitions import Batch

RATE = 0.01
"""Of the newest batch in the running moments of a task's contexts."""


class HnetContext(Hnet):
    """h([e; c], θ) writes a network for every window, and for every robot while it acts.

    What is written for an old task is now a function of the context, and R holds it at contexts
    drawn anew at every step, c_j from a normal distribution with the running mean and variance of
    the task's own: R = (1/t) Σ_j ‖h([e_j; c_j], θ*) − h([e_j; c_j], θ + Δθ)‖², with θ* as the
    present task found it. One copy of θ takes the place of the written weights.
    """

    ensembles = False
    conditionings = ("hypernetwork",)
    own_terms = "a network is written for every window"
    model: ContextModel
    reference: Tensor
    moments: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        if self.config.targets == "kept":
            raise UserError(
                "method.targets=kept keeps what was written for a task, and with "
                "context.into=hypernetwork that differs from window to window: use "
                "method.targets=renewed, or context.into=input or film."
            )
        self.targets = self.targets[:, :0]
        self.register_buffer("reference", self.hypernetwork.theta.detach().clone())
        # Per task the mean of its contexts and of their squares.
        self.register_buffer("moments", torch.zeros(0, 2, self.model.embedding_inputs))

    def begin_task(self) -> None:
        super().begin_task()
        self.reference.copy_(self.hypernetwork.theta.detach())

    def _old_outputs(self) -> Tensor:
        return self.targets.new_empty(self.tasks, 0)

    def _add_task(self) -> None:
        super()._add_task()
        self.targets = self.targets[:, :0].clone()  # a view would hold the memory of all
        fresh = self.moments.new_zeros(1, 2, self.model.embedding_inputs)
        self.moments = torch.cat([self.moments, fresh])

    def _inputs(self, embedding: Tensor, context: Tensor) -> Tensor:
        return torch.cat([embedding.expand(len(context), -1), context], -1)

    def _weights(self, task: int) -> Tensor:
        nothing = self.targets.new_zeros(1, self.model.embedding_inputs)
        return self.hypernetwork(self._inputs(self.embeddings[task], nothing))[0]

    def _written_for(self, batch: Batch) -> Tensor:
        context = self.model.planning_context(batch.obs, batch.action, batch.next_obs)
        with torch.no_grad():
            now = torch.stack([context.mean(0), context.square().mean(0)])
            self.moments[-1].lerp_(now, RATE)
        return self.hypernetwork(self._inputs(self.embeddings[-1], context))

    def _regularise(self, strength: float) -> Tensor:
        chosen = self._chosen_tasks()
        old = self._old_embeddings(chosen)
        mean, square = self.moments[:-1][chosen].unbind(1)
        noise = torch.randn(mean.shape, generator=self.sampler, device=mean.device)
        drawn = mean + (square - mean.square()).clamp_min(0).sqrt() * noise
        inputs = torch.cat([old, drawn], -1)
        with torch.no_grad():
            wanted = self.hypernetwork(inputs, self.reference)
        written = self.hypernetwork(inputs, self.look_ahead.advance())
        regulariser = F.mse_loss(written, wanted, reduction="sum") / len(old)
        (strength * regulariser).backward()
        return regulariser.detach()

    @torch.no_grad()
    def planner_layers(self, task: int) -> Callable[[Tensor | None], PlanningLayers]:
        embedding = self.embeddings[min(task, self.tasks - 1)].detach().clone()
        theta = self.hypernetwork.theta.detach().clone()
        nothing = self.targets.new_zeros(1, self.model.embedding_inputs)

        @torch.no_grad()
        def layers(context: Tensor | None) -> PlanningLayers:
            known = nothing if context is None else context
            weights = self.hypernetwork(self._inputs(embedding, known), theta)
            return self.model.planning_layers(self.model.layout.split(weights), task, known)

        return layers
