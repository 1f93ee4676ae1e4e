"""The dynamics model: an MLP whose weights somebody else owns."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hypercrl.dynamics.layout import MLPLayout
from hypercrl.dynamics.normaliser import Normaliser
from hypercrl.replay.transitions import Batch
from hypercrl_kernels import GaussianLayers
from hypercrl_kernels.training import NetworkGradient, Scales, network_gradient, scaled_error

SLOWEST = 1e-3
"""Of the range of a dimension: the smallest scale of its change. What takes thousands of steps
through its own range, such as a resting body that creeps, is not blown up to motion."""

Layers = list[tuple[Tensor, Tensor]]
PlanningLayers = Layers | GaussianLayers
"""What a rollout goes through; of a probabilistic model with its variance."""

OldNetworks = Callable[[], Sequence[Layers]]
"""→ of each old task its network as it is now, without gradients."""


class DynamicsModel(nn.Module):
    """Predicts the change of the observation from normalised [obs, action].

    The weights are an argument of every call: a flat vector [P] written by a hypernetwork or kept
    by a method. The model owns the layout, the normalisers and, when probabilistic, the
    learned bounds of the log-variance (Chua et al. 2018, appendix A.1), and what these were when
    old tasks ended, see `keep_bounds`.

    Args:
        obs_size, action_size: widths O and A.
        hidden: hidden widths of the main network.
        probabilistic: also predict a log-variance per dimension, in normalised units.
        variance_weight: β of its loss, see `row_losses`.
    """

    old_bounds: Tensor

    def __init__(
        self,
        obs_size: int,
        action_size: int,
        hidden: Sequence[int],
        probabilistic: bool,
        variance_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.obs_size = obs_size
        self.action_size = action_size
        self.embedding_inputs = 0
        self.memory_rate = 0.0
        self.probabilistic = probabilistic
        self.variance_weight = variance_weight
        outputs = 2 * obs_size if probabilistic else obs_size
        self.layout = MLPLayout([obs_size + action_size, *hidden, outputs])
        self.input_normaliser = Normaliser(obs_size + action_size)
        self.target_normaliser = Normaliser(obs_size)
        if probabilistic:
            self.min_logvar = nn.Parameter(torch.full((obs_size,), -10.0))
            self.max_logvar = nn.Parameter(torch.full((obs_size,), 0.5))
            self.register_buffer("old_bounds", torch.empty(0, 2, obs_size))

    @torch.no_grad()
    def fit_normalisers(self, batch: Batch) -> None:
        """Fit to the next task's random steps; see `Normaliser`."""
        self.input_normaliser.fit(_joined(batch))
        self.target_normaliser.fit(*_changes(batch))

    @torch.no_grad()
    def follow(self, batch: Batch) -> None:
        """Fit what has begun to move to all of the present task so far; see `Normaliser`."""
        self.input_normaliser.follow(_joined(batch))
        self.target_normaliser.follow(*_changes(batch))

    @torch.no_grad()
    def follows(self, batch: Batch) -> bool:
        """Whether `follow` would change anything."""
        inputs, targets = self.input_normaliser, self.target_normaliser
        same = torch.equal(inputs.scale, inputs.wanted(_joined(batch)))
        return not (same and torch.equal(targets.scale, targets.wanted(*_changes(batch))))

    def inputs(self, obs: Tensor, action: Tensor) -> Tensor:
        """[..., O], [..., A] → [..., O + A], normalised: what every network of a method reads."""
        return self.input_normaliser(torch.cat([obs, action], -1))

    def observation_scales(self) -> tuple[Tensor, Tensor]:
        """Mean and scale [O] by which `inputs` are normalised; views, which change with them."""
        scales = self.input_normaliser
        return scales.mean[: self.obs_size], scales.scale[: self.obs_size]

    def distribution(self, outputs: Tensor, task: int | None = None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance [..., O] of the normalised change, from a network's raw outputs.

        The bounds are those of task `task` (from 0), see `keep_bounds`, or the present ones.
        The log-variance is 0 when it is not learned, and of what has not moved yet: more and more
        sure of that, by e^{−s} in front of its errors, it would drown what there is to learn.
        """
        if not self.probabilistic:
            return outputs, torch.zeros_like(outputs)
        mean, logvar = outputs.chunk(2, -1)
        least, most = self._bounds(task)
        logvar = most - F.softplus(most - logvar)
        logvar = least + F.softplus(logvar - least)
        return mean, logvar * self.target_normaliser.moving()

    def predict(self, weights: Tensor, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of next_obs − obs, in observation units.

        Args:
            weights: [P]; obs: [..., O]; action: [..., A].

        Returns:
            ([..., O], [..., O]); the log-variance of what has not moved yet is −∞.
        """
        mean, logvar = self.distribution(self.layout.apply(weights, self.inputs(obs, action)))
        scale = self.target_normaliser.reach()
        return mean * scale + self.target_normaliser.mean, logvar + 2 * scale.log()

    def loss(
        self,
        weights: Tensor,
        batch: Batch,
        layout: MLPLayout | None = None,
        old: OldNetworks = tuple,  # noqa: ARG002
    ) -> Tensor:
        """Scalar loss, summed over the batch and averaged over the O dimensions.

        MSE (1/O) ΣΣ (μ − y)², or with log-variance s
        (1/O) ΣΣ ⌊e^{βs}⌋ [(μ − y)² e^{−s} + s] + 0.01 Σ (s_max − s_min), see `row_losses`. Of
        weights [M, P] for a batch [M, N, …], each network on rows of its own, the mean over the
        networks.

        Args:
            weights: [P] or [M, P].
            batch: N transitions.
            layout: of the network; by default the model's own.
            old: asked by a model that holds what the networks of old tasks say.
        """
        inputs = self.inputs(batch.obs, batch.action)
        outputs = (layout or self.layout).apply(weights, inputs).flatten(0, -2)
        obs, next_obs = batch.obs.flatten(0, -2), batch.next_obs.flatten(0, -2)
        if self.probabilistic:
            loss = self.row_losses(outputs, obs, next_obs).sum()
        else:
            scales = self.target_normaliser
            loss = scaled_error(outputs, obs, next_obs, scales.mean, scales.scale)
        if weights.dim() == 2:
            loss = loss / len(weights)
        return loss + self.spread() if self.probabilistic else loss

    def loss_gradient(self, weights: Tensor, batch: Batch) -> NetworkGradient:
        """`loss` over N, and the gradient of `loss` with respect to the weights [P] or [M, P].

        Both are in shares, see `NetworkGradient`. The model's own parameters get their gradients.
        """
        if self.probabilistic or batch.obs.dim() > 2:
            size = len(batch) if weights.dim() == 1 else batch.obs.shape[1]
            weights = weights.detach().requires_grad_()
            loss = self.loss(weights, batch)
            loss.backward()
            assert weights.grad is not None
            return NetworkGradient(loss.detach()[None] / size, weights.grad[None])
        inputs, targets = self.input_normaliser, self.target_normaliser
        scales = Scales(inputs.mean, inputs.scale, targets.mean, targets.scale)
        sizes = self.layout.sizes
        return network_gradient(weights, sizes, batch.obs, batch.action, batch.next_obs, scales)

    def row_losses(self, outputs: Tensor, obs: Tensor, next_obs: Tensor) -> Tensor:
        """[...] loss of each transition alone, without the spread, from a network's outputs.

        With a log-variance s (1/O) Σ ⌊e^{βs}⌋ [(μ − y)² e^{−s} + s], where nothing goes back
        through ⌊·⌋ and β is `variance_weight`: by the likelihood, β = 0, what is hard to predict
        hardly counts, and with β = 1 the mean is trained as if there were no variance (β-NLL;
        Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation with
        probabilistic neural networks", ICLR 2022, equation 5).
        """
        target = self.target_normaliser(next_obs - obs)
        mean, logvar = self.distribution(outputs)
        squared = (mean - target).square()
        if not self.probabilistic:
            return squared.sum(-1) / self.obs_size
        loss = squared * (-logvar).exp() + logvar
        return self._weighted(loss, logvar).sum(-1) / self.obs_size

    def _weighted(self, loss: Tensor, logvar: Tensor) -> Tensor:
        """[..., O] negative log-likelihoods times ⌊e^{βs}⌋, of log-variances s."""
        if not self.variance_weight:
            return loss
        return loss * (self.variance_weight * logvar.detach()).exp()

    def spread(self) -> Tensor:
        """0.01 Σ (s_max − s_min), which draws the bounds of the log-variance together, or 0.

        The sum is over what has moved: nothing else holds the bounds apart.
        """
        if not self.probabilistic:
            return self.target_normaliser.mean.new_zeros(())
        bounds = (self.max_logvar - self.min_logvar) * self.target_normaliser.moving()
        return 0.01 * bounds.sum()

    @torch.no_grad()
    def keep_bounds(self) -> None:
        """Go on planning for the latest task with the bounds of the log-variance as they are now.

        Its network was trained between these: what later tasks make of them would turn its
        outputs, which have not moved, into other variances.
        """
        if self.probabilistic:
            now = torch.stack([self.min_logvar, self.max_logvar])
            self.old_bounds = torch.cat([self.old_bounds, now[None]])

    def _bounds(self, task: int | None) -> tuple[Tensor, Tensor]:
        """[O] least and largest log-variance of task `task`: those kept, or the present ones."""
        if task is not None and task < len(self.old_bounds):
            return self.old_bounds[task, 0], self.old_bounds[task, 1]
        return self.min_logvar, self.max_logvar

    def memory_parameters(self) -> list[nn.Parameter]:
        """Those of the model's parameters that make a context out of a history."""
        return []

    def protect(self, tasks: int) -> None:
        """Task number `tasks` is in training: hold what of the memory the old ones rely on."""

    def begin_task(self) -> None:
        """A new task begins: take note of what is to be held of the memory."""

    @torch.no_grad()
    def planning_layers(
        self,
        layers: Layers,
        task: int,
        context: Tensor | None = None,  # noqa: ARG002
    ) -> PlanningLayers:
        """A network as plain layers in observation units, a probabilistic one with its variance.

        Both normalisers are folded into the first and last layer, so that a rollout step is
        nothing but the products themselves. What had not moved by the end of task `task` (from 0),
        whose layers these are, stands still and is not looked at: a scale that came later would
        turn the rest of an old model's error there into motion, and the constant that it was, less
        the mean, is 0 up to a rounding that weights never met.

        Args:
            layers: of one network, or of one a robot.
            context: [B, C] of B robots; a model without a memory reads none.
        """
        layers = [(w.clone(), b.clone()) for w, b in layers]
        first_w, first_b = layers[0]
        first_w = first_w / self.input_normaliser.scale * self.input_normaliser.moving(task)
        layers[0] = (first_w, first_b - first_w @ self.input_normaliser.mean)
        last_w, last_b = layers.pop()
        of_mean, of_variance = slice(0, self.obs_size), slice(self.obs_size, None)
        scale = self.target_normaliser.reach(task)
        mean_b = scale * last_b[..., of_mean] + self.target_normaliser.mean
        layers.append((scale[:, None] * last_w[..., of_mean, :], mean_b))
        if not self.probabilistic:
            return layers
        least, most = self._bounds(task)
        bounds = torch.stack([least.exp(), (-most).exp(), scale])
        return GaussianLayers(
            layers, (last_w[..., of_variance, :], last_b[..., of_variance]), bounds
        )


def _joined(batch: Batch) -> Tensor:
    """[N, O + A], before they are normalised."""
    return torch.cat([batch.obs, batch.action], -1)


def _changes(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """The targets [N, O], and of each dimension its largest number and the least scale [O]."""
    obs, next_obs = batch.obs, batch.next_obs
    size = torch.maximum(obs.abs().amax(0), next_obs.abs().amax(0))
    return next_obs - obs, size, SLOWEST * obs.std(0, correction=0)
