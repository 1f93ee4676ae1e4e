"""A dynamics model conditioned on the context that a memory makes of the robot's transitions."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.base.settings import choice, number, setting
from hypercrl.dynamics.conditioning import CONDITIONINGS, Conditioning, Network
from hypercrl.dynamics.layout import MLPLayout
from hypercrl.dynamics.model import DynamicsModel, Layers, OldNetworks, PlanningLayers
from hypercrl.memory.base import MemoryEncoder
from hypercrl.replay.transitions import Batch
from hypercrl_kernels import GaussianLayers


@dataclass
class ContextConfig:
    """How a memory is trained, and how its context reaches the dynamics.

    Open-loop predictions begin at the end of the burn-in and every `stride` transitions before it,
    so that a memory learns to speak early; a stride beyond the burn-in leaves the last one alone. A
    hypernetwork writes one network a window, and makes the last one alone too.
    """

    into: str = choice(
        "input",
        *CONDITIONINGS,
        help="what takes the context in: first layer, all hidden layers, or hypernetwork",
    )
    protect: str = choice(
        "freeze",
        "freeze",
        "distil",
        "none",
        help="after the first task: freeze encoder and FiLM, hold old predictions, or neither",
    )
    distil: float = number(
        10.0,
        least=0,
        only_with=("protect=distil",),
        help="weight of what old networks predict otherwise, beside the loss of the next step",
    )
    learning_rate: float = number(1e-3, least=0, help="of encoder and FiLM")
    burn_in: int = number(
        20, least=1, help="transitions of a window read before its last open-loop prediction"
    )
    horizon: int = number(10, least=1, help="transitions that are predicted open loop")
    stride: int = number(
        3,
        least=1,
        only_with=("into=input|film",),
        help="transitions between the beginnings of open-loop predictions",
    )
    windows: int = number(32, least=1, help="in a training step")
    always: bool = setting(
        False, help="train on windows without a memory too: the reference for one"
    )

    @property
    def length(self) -> int:
        """Transitions of a window."""
        return self.burn_in + self.horizon


class ContextModel(DynamicsModel):
    """Dynamics with a context: `loss` reads windows of an episode instead of single transitions.

    Encoder and conditioning are parameters of the model, so every method trains them along.

    Args:
        encoder: the memory; its tokens are transitions, see `tokens`.
        conditioning: how the context reaches the network.
        config: of the training.
        obs_size, action_size, hidden, probabilistic, variance_weight: see `DynamicsModel`.
    """

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        probabilistic: bool,
        encoder: MemoryEncoder,
        conditioning: Conditioning,
        config: ContextConfig,
        variance_weight: float = 0.0,
    ) -> None:
        super().__init__(obs_size, action_size, hidden, probabilistic, variance_weight)
        self.layout = MLPLayout(
            [obs_size + action_size + conditioning.network_inputs, *self.layout.sizes[1:]]
        )
        self.encoder = encoder
        self.conditioning = conditioning
        self.embedding_inputs = conditioning.embedding_inputs
        self.memory_rate = config.learning_rate
        self.context_config = config
        if config.protect == "distil":
            self.old_encoder = deepcopy(encoder).requires_grad_(False)
            self.old_conditioning = deepcopy(conditioning).requires_grad_(False)

    def memory_parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.conditioning.parameters()]

    def protect(self, tasks: int) -> None:
        """From the second task on encoder and conditioning stand still, if they are to be frozen.

        What old tasks' networks read out of a context then stays what it was.
        """
        frozen = tasks > 1 and self.context_config.protect == "freeze"
        for parameter in self.memory_parameters():
            parameter.requires_grad_(not frozen)

    @property
    def distils(self) -> bool:
        """Whether what old networks predict with the memory is held."""
        return self.context_config.protect == "distil"

    @torch.no_grad()
    def begin_task(self) -> None:
        """Keep encoder and conditioning as the old tasks had them, if these are to be held."""
        if self.distils:
            old = [*self.old_encoder.parameters(), *self.old_conditioning.parameters()]
            for kept, own in zip(old, self.memory_parameters(), strict=True):
                kept.copy_(own)

    def tokens(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """[..., O], [..., A], [..., O] → [..., O + A + O]: a transition as an encoder reads it."""
        change = self.target_normaliser(next_obs - obs)
        return torch.cat([self.inputs(obs, action), change], -1)

    def contexts(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """Windows [N, L, …] → [N, L + 1, C]: the context before and after each transition."""
        return _contexts(self.encoder, self.tokens(obs, action, next_obs))

    def loss(
        self,
        weights: Tensor,
        batch: Batch,
        layout: MLPLayout | None = None,
        old: OldNetworks = tuple,
    ) -> Tensor:
        """Loss of windows [N, L, …], summed over the windows: truncated back-propagation over L.

        The next step's loss, the mean over all positions, each with the context of what came before
        it; plus the mean loss of `horizon` steps open loop, as a planner rolls the model out, from
        every `stride`-th position with the context of that moment. With weights [N, P] written for
        each window at the end of its burn-in, what counts are the steps after it.

        Where old networks' predictions are to be distilled, see `_drift`, that comes in addition.
        """
        obs, action, next_obs = batch.obs, batch.action, batch.next_obs
        layers = (layout or self.layout).split(weights)
        stride, horizon = self.context_config.stride, self.context_config.horizon
        if weights.dim() == 2:
            first = begin = self.context_config.burn_in
            before = obs[..., :0]
        else:
            first, begin = 0, self.context_config.burn_in % stride
            before = self.contexts(obs[:, :-1], action[:, :-1], next_obs[:, :-1])
        network = self.conditioning.network(layers, before[:, first:])
        outputs = network(self.inputs(obs, action)[:, first:])
        next_step = self.row_losses(outputs, obs[:, first:], next_obs[:, first:]).mean(1).sum()

        # All predictions side by side, [N S, ...]: one loop over the horizon.
        starts = slice(begin, obs.shape[1] - horizon + 1, stride)
        state, context = (part[:, starts].flatten(0, 1) for part in (obs, before))
        actions, reached = (
            part[:, begin:].unfold(1, horizon, stride).transpose(2, 3).flatten(0, 1)
            for part in (action, next_obs)
        )
        network = self.conditioning.network(layers, context[:, None])
        ahead = self._open_loop(network, state, actions, reached) * (len(obs) / len(state))
        auxiliary = len(obs) * self.encoder.auxiliary_loss()
        total = next_step + ahead + auxiliary + self.spread()
        if self.distils and (networks := old()):
            total = total + self.context_config.distil * self._drift(networks, batch, before)
        return total

    def _drift(self, old: Sequence[Layers], batch: Batch, contexts: Tensor) -> Tensor:
        """How far old networks' predictions have moved with the memory, on the present windows.

        The squared distance of what each network puts out with the present contexts [N, L, C] from
        what it puts out with the memory of before this task; the mean over networks, positions and
        outputs, summed over the windows. So no data of old tasks are kept: Li and Hoiem, "Learning
        without forgetting", ECCV 2016, in which outputs are those of old heads. What no old network
        reads of a context is free to change.
        """
        obs, action, next_obs = batch.obs, batch.action, batch.next_obs
        inputs = self.inputs(obs, action)
        with torch.no_grad():
            tokens = self.tokens(obs[:, :-1], action[:, :-1], next_obs[:, :-1])
            earlier = _contexts(self.old_encoder, tokens)
            wanted = [self.old_conditioning.network(w, earlier)(inputs) for w in old]
        found = [self.conditioning.network(w, contexts)(inputs) for w in old]
        return len(obs) * F.mse_loss(torch.stack(found), torch.stack(wanted))

    def _open_loop(
        self, network: Network, state: Tensor, actions: Tensor, reached: Tensor
    ) -> Tensor:
        """Loss of k steps without looking: mean over the steps, summed over the windows.

        The negative log-likelihood of where k independent errors, one a step, have led: squared
        error over the sum of the variances, which without a log-variance is the number of steps.
        """
        scales = self.target_normaliser
        variance = torch.zeros_like(state)
        total = torch.zeros_like(state[:, 0])
        for step in range(actions.shape[1]):
            outputs = network(self.inputs(state, actions[:, step])[:, None])
            change, logvar = self.distribution(outputs[:, 0])
            state = state + change * scales.reach() + scales.mean
            variance = variance + logvar.exp()
            row = ((state - reached[:, step]) / scales.scale).square() / variance
            if self.probabilistic:
                row = self._weighted(row + variance.log(), variance.log())
            total = total + row.mean(-1)
        return total.sum() / actions.shape[1]

    def planning_context(self, obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
        """Windows [N, L, …] → [N, C]: the context at the end of the burn-in."""
        seen = (part[:, : self.context_config.burn_in] for part in (obs, action, next_obs))
        return self.contexts(*seen)[:, -1]

    @torch.no_grad()
    def planning_layers(
        self, layers: Layers, task: int, context: Tensor | None = None
    ) -> PlanningLayers:
        """See `DynamicsModel`; for robots of contexts [B, C], one network a robot."""
        if context is None:
            context = layers[0][0].new_zeros(1, self.encoder.context_size)
        folded = super().planning_layers(self.conditioning.fold(layers, context), task)
        # One robot's network is shared by all its particles, which is what plain layers are for.
        return _of_one(folded) if len(context) == 1 else folded


def _contexts(encoder: MemoryEncoder, tokens: Tensor) -> Tensor:
    """[N, T, X] → [N, T + 1, C]: of nothing, and after each token."""
    after, _ = encoder.encode(tokens)
    return torch.cat([torch.zeros_like(after[:, :1]), after], 1)


def _of_one(folded: PlanningLayers) -> PlanningLayers:
    """The only robot's network, without the axis of robots."""
    if isinstance(folded, GaussianLayers):
        *mean, head = _unstacked([*folded.mean, folded.head])
        return GaussianLayers(mean, head, folded.bounds)
    return _unstacked(folded)


def _unstacked(layers: Layers) -> Layers:
    return [(w[0], b[0]) if w.dim() == 3 else (w, b) for w, b in layers]
