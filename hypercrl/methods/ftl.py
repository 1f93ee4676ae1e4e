"""Follow the leader: sparse random features, and the best linear read-out of all data so far.

After Liu, Du, Lee, Lin, "Locality sensitive sparse encoding for learning world models online",
ICLR 2024: a linear model on fixed sparse features whose least-squares solution is updated in
closed form forgets nothing, because it is at every time the solution for everything seen. The
features here are the inputs themselves, as relu(x) and relu(−x), and thresholded random
projections, of which few are active at a time. So the model is a ReLU network with one wide hidden
layer and is planned with like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import ClassVar

import torch
from torch import Tensor

from hypercrl.base.settings import number, unused
from hypercrl.base.sizes import FLOAT
from hypercrl.dynamics import MLPLayout
from hypercrl.methods.base import Method, MethodConfig, StepReport
from hypercrl.replay.transitions import Batch


@dataclass
class FTLConfig(MethodConfig):
    """Random features, and the ridge regression on them.

    The ridge is what keeps a rollout of many steps from running away where there is little data.
    Without an embedding there is one model for whatever comes, and no label is needed.
    """

    ignores: ClassVar[Mapping[str, str]] = {
        "dynamics.hidden": "",
        **dict.fromkeys(
            ("protocol.updates", "protocol.first_updates", "protocol.batch_size"), "value.kind=td"
        ),
    }

    learning_rate: float = unused(1e-3)
    clip_norm: float = unused(5.0)
    features: int = number(1000, least=1, help="how many random features there are")
    active: float = number(
        0.1, least=0.001, most=0.999, help="share of the features that is active at a time"
    )
    ridge: float = number(30.0, least=1e-12, help="weight of the squared norm of the solution")
    embedding_size: int = number(
        0, least=0, help="width of a fixed random vector per task beside the input; 0: none"
    )

    def least_bytes(self, weights: int) -> dict[str, int]:  # noqa: ARG002
        """See `MethodConfig`: Σ φ φᵀ."""
        return {"method.features": FLOAT * self.features**2}


class FTL(Method):
    """W = argmin Σ ‖W [φ(x); 1] − y‖² + ridge ‖W‖² over all transitions, from ΣφφT and ΣφyT.

    Training steps change nothing; the solution moves when transitions are observed.
    """

    learns_variance = False
    config: FTLConfig
    projection: Tensor
    embeddings: Tensor
    moments: Tensor
    products: Tensor
    solution: Tensor

    def _prepare(self) -> None:
        config, model, generator = self.config, self.model, self.generator
        inputs = model.layout.sizes[0]
        told = config.embedding_size
        self.one_network = MLPLayout([inputs, 2 * inputs + config.features, model.obs_size])
        width = self.one_network.sizes[1] + 1
        # The projection of unit normal inputs, and of unit normal embeddings, has variance 1.
        seen = torch.randn(config.features, inputs, generator=generator) / sqrt(inputs)
        of_task = torch.randn(config.features, told, generator=generator) / sqrt(max(told, 1))
        scale = sqrt(2) if told else 1.0
        self.register_buffer("projection", torch.cat([seen, of_task], 1) / scale)
        self.register_buffer("embeddings", torch.empty(0, told))
        self.register_buffer("moments", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("products", torch.zeros(width, model.obs_size, dtype=torch.float64))
        self.register_buffer("solution", torch.zeros(model.obs_size, width))

    def layout(self, task: int) -> MLPLayout:  # noqa: ARG002
        return self.one_network

    @torch.no_grad()
    def follow(self, batch: Batch, fresh: int) -> None:
        """Sum the task's transitions anew where scales change; old tasks' features stay.

        Those that the replay has let go of keep the features that they had. A change that was
        summed stays the same change.
        """
        if not self.model.follows(batch):
            return
        seen = max(len(batch) - fresh, 0)  # none where more are new than the replay holds
        observed = batch.at(torch.arange(seen, device=batch.obs.device))
        self._add(observed, -1)
        super().follow(batch, fresh)
        self._add(observed, 1)
        self._solve()

    @torch.no_grad()
    def observe(self, batch: Batch) -> None:
        self._add(batch, 1)
        self._solve()

    @torch.no_grad()
    def _bring_along(self, ratio: Tensor) -> None:
        """The sums of targets, and the layer that follows from them."""
        if (ratio != 1).any():
            self.products *= ratio
            self._solve()

    def _add(self, batch: Batch, sign: int) -> None:
        """Add transitions to the sums, or with sign −1 take them out."""
        features = self._features(self.model.inputs(batch.obs, batch.action)).double()
        ones = features.new_ones(len(batch), 1)
        features = torch.cat([features, ones], 1)
        target = self.model.target_normaliser(batch.next_obs - batch.obs).double()
        self.moments += sign * (features.T @ features)
        self.products += sign * (features.T @ target)

    def _solve(self) -> None:
        same = torch.eye(len(self.moments), device=self.moments.device, dtype=self.moments.dtype)
        factor, _ = torch.linalg.cholesky_ex(self.moments + self.config.ridge * same)
        self.solution.copy_(torch.cholesky_solve(self.products, factor).T)

    @torch.no_grad()
    def training_step(self, batch: Batch) -> StepReport:
        loss = self._task_loss(self.weights(self.tasks - 1), batch)
        return {
            "loss": loss / len(batch),
            "regulariser": torch.zeros_like(loss),
            "gradient_norm": torch.zeros_like(loss),
        }

    def _features(self, x: Tensor) -> Tensor:
        """[N, in] of the present task → [N, features]."""
        weight, bias = self._first_layer(self.tasks - 1)
        return torch.relu(x @ weight.T + bias)

    def _first_layer(self, task: int) -> tuple[Tensor, Tensor]:
        inputs = self.one_network.sizes[0]
        seen, told = self.projection[:, :inputs], self.projection[:, inputs:]
        same = torch.eye(inputs, device=seen.device, dtype=seen.dtype)
        bias = told @ self.embeddings[task] - NormalDist().inv_cdf(1 - self.config.active)
        return torch.cat([same, -same, seen]), torch.cat([bias.new_zeros(2 * inputs), bias])

    def _add_task(self) -> None:
        embedding = torch.randn(1, self.config.embedding_size, generator=self.generator)
        self.embeddings = torch.cat([self.embeddings, embedding.to(self.embeddings)])

    def _weights(self, task: int) -> Tensor:
        weight, bias = self._first_layer(task)
        read_out = self.solution[:, :-1]
        return torch.cat([weight.flatten(), bias, read_out.flatten(), self.solution[:, -1]])

    def _new_optimisers(self) -> list[torch.optim.Adam]:
        return []
