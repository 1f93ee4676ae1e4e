"""How parameters survive a change of task: the interface of every continual-learning method."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from hypercrl.base.saved import load_moments, same_kind, same_type
from hypercrl.base.settings import number, setting
from hypercrl.base.sizes import TRAINED
from hypercrl.dynamics import DynamicsModel, MLPLayout
from hypercrl.dynamics.layout import hidden_layers
from hypercrl.dynamics.model import Layers, PlanningLayers
from hypercrl.replay.transitions import Batch, tensor_bytes

STEP_REPORT = ("loss", "regulariser", "gradient_norm")
StepReport = dict[str, Tensor]
"""Scalars of one training step, left on the device, by the names of `STEP_REPORT`."""


@dataclass
class MethodConfig:
    """Fields that every method has; a method's own dataclass adds to them.

    Attributes:
        ignores: settings and groups elsewhere that have no effect with the method, by their keys,
            each with what gives it one nevertheless, as `only_with` of `hypercrl.base.settings`
            says it, "value.kind=td", or with "". Who gives one is told. A key that is no setting is
            refused.
    """

    ignores: ClassVar[Mapping[str, str]] = {}

    name: str = setting(help="set by method=NAME")
    learning_rate: float = number(1e-3, least=0, help="of Adam")
    clip_norm: float = number(
        5.0, least=0, help="largest norm of a gradient, which is scaled down to it"
    )
    members: int = number(
        1, least=1, help="M, networks a task, an ensemble: they disagree on what they have not seen"
    )

    def least_bytes(self, weights: int) -> dict[str, int]:
        """Bytes that a run takes at least, by the settings that ask for them.

        A run of which one of these alone is more than what is free is refused beforehand.

        Args:
            weights: P, of the dynamics model.
        """
        settings = "dynamics.hidden" if self.members == 1 else "dynamics.hidden and method.members"
        return {settings: TRAINED * weights * self.members}


class Method(nn.Module, ABC):
    """Owns every trained parameter; writes the flat weights of the dynamics model for a task.

    Tasks are counted from 0 in the order in which they are begun. A task that has not been begun
    is met with the weights of the latest one: that is what zero-shot transfer measures.

    A task goes `begin_task`; `fit_normalisers`, on its random steps; then, again and again,
    `follow`, training steps and `observe`; then `end_task`.
    Whatever a method keeps is a parameter or a buffer, so that its state is in every checkpoint.

    A model with a memory is trained on windows of episodes instead of transitions: a batch of N
    windows [N, L, …] in place of one of N transitions. `conditionings` names the ways of a context
    into the dynamics with which a method can do so. `one_layout` says whether the networks of all
    tasks have the same sizes, `learns_variance` whether a probabilistic model can be trained,
    `ensembles` whether there may be M > 1 networks a task, the members of an ensemble. These are
    trained on batches of their own, [M, N, …], see `hypercrl.replay.bootstrap`; what there is of
    each stands in the rows of one parameter, and a loss is the mean over them. `rehearses` says
    whether networks of old tasks are trained along on data of theirs, so that in a probabilistic
    model the present bounds of the log-variance are theirs too; else each keeps its own.

    Args:
        model: the dynamics model the weights are for.
        config: the method's settings.
        generator: CPU generator of all initial parameters.
        sampler: generator of all later draws, such as rehearsed transitions; on the device that
            the method is moved to, so that a training step can be one CUDA graph.
    """

    conditionings: ClassVar[tuple[str, ...]] = ()
    one_layout: ClassVar[bool] = True
    learns_variance: ClassVar[bool] = True
    ensembles: ClassVar[bool] = False
    rehearses: ClassVar[bool] = False

    def __init__(
        self,
        model: DynamicsModel,
        config: MethodConfig,
        generator: torch.Generator,
        sampler: torch.Generator,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.members = config.members
        self.generator = generator
        self.sampler = sampler
        self.tasks = 0
        self.extra_updates = 0
        """Updates beyond the training steps that the protocol gives to every method alike."""
        self.optimisers: list[torch.optim.Adam] = []
        self._prepare()

    def _prepare(self) -> None:
        """Create what there is before the first task; the fields above are set."""

    def begin_task(self) -> None:
        """Prepare for a new task: new parameters, new optimisers."""
        if self.tasks and not self.rehearses:
            self.model.keep_bounds()
        self._add_task()
        self.tasks += 1
        self.model.begin_task()
        self.model.protect(self.tasks)
        self.optimisers = self._new_optimisers()

    @abstractmethod
    def training_step(self, batch: Batch) -> StepReport:
        """One update on a batch of the current task; never waits for the device.

        Args:
            batch: N transitions, or windows; of M > 1 members [M, N, …].
        """

    def fit_normalisers(self, batch: Batch) -> None:
        """Fit the model's normalisers to the random steps of a task that has begun.

        What only trembled in tasks before gets another scale.
        """
        scale = self.model.target_normaliser.scale.clone()
        self.model.fit_normalisers(batch)
        self._bring_along(self.model.target_normaliser.since_then(scale))

    def follow(self, batch: Batch, fresh: int) -> None:  # noqa: ARG002
        """Let the model's normalisers take in what has begun to move, see `Normaliser`.

        Args:
            batch: all that the replay holds of the task, the oldest first.
            fresh: how many of the last ones `observe` has not been given yet.
        """
        scale = self.model.target_normaliser.scale.clone()
        self.model.follow(batch)
        self._bring_along(self.model.target_normaliser.since_then(scale))

    def observe(self, batch: Batch) -> None:
        """Take note of new transitions: each comes once, in order, after the steps trained on it.

        Called between rounds of training steps, and with the rest before `end_task`.
        """

    def end_task(self, batch: Batch) -> None:
        """The task is over; `batch` is all that the replay holds of it, and is emptied next."""

    def weights(self, task: int) -> Tensor:
        """[P] weights for `task` in the order of `layout(task)`, with gradients recorded.

        [M, P] of M > 1 members.
        """
        return self._weights(min(task, self.tasks - 1))

    def layout(self, task: int) -> MLPLayout:  # noqa: ARG002
        """The network that `weights(task)` are the weights of."""
        return self.model.layout

    def layers(self, task: int) -> Layers:
        """Weight and bias of each layer for `task`, on normalised inputs and outputs.

        Weights [M, out, in] and biases [M, out] of M > 1 members.
        """
        return self.layout(task).split(self.weights(task))

    @torch.no_grad()
    def activations(self, task: int, batch: Batch) -> dict[str, list[Tensor]]:
        """What is active in the hidden layers of what it has learned, by the network's name.

        Args:
            batch: N transitions of `task`.

        Returns:
            "network": [N, width] of each layer of the dynamics model, or [M, N, width] of members.
        """
        inputs = self.model.inputs(batch.obs, batch.action)
        if self.members > 1:
            inputs = inputs.expand(self.members, *inputs.shape)
        return {"network": hidden_layers(self.layers(task), inputs)}

    @torch.no_grad()
    def planner_layers(self, task: int) -> Callable[[Tensor | None], PlanningLayers]:
        """From contexts [B, C] to what B robots plan `task` with, see `planning_layers`.

        A model without a memory reads no context. What comes back is of the present weights; of
        M > 1 members it is M networks.
        """
        layers = [(w.clone(), b.clone()) for w, b in self.layers(task)]
        return lambda context: self.model.planning_layers(layers, task, context)

    def _task_loss(self, weights: Tensor, batch: Batch) -> Tensor:
        """Loss of the current task with these weights of its network, summed over the batch."""
        return self.model.loss(weights, batch, self.layout(self.tasks - 1), self._old_layers)

    @torch.no_grad()
    def _old_layers(self) -> list[Layers]:
        """Of each old task as its network is now, without gradients."""
        return [self.layers(task) for task in range(self.tasks - 1)]

    def _batch_size(self, batch: Batch) -> int:
        """N, transitions or windows that a network is trained on in a step."""
        return len(batch) if self.members == 1 else batch.obs.shape[1]

    def caution(self, tasks: int) -> str | None:  # noqa: ARG002
        """What its user should know before so many tasks are learned; None: nothing."""
        return None

    def memory_bytes(self) -> int:
        """Bytes that learning takes now, beside optimiser state and replay.

        What a method could make anew as the next task begins counts until then.
        """
        return tensor_bytes([*self.parameters(), *self._stored()])

    def _bring_along(self, ratio: Tensor) -> None:
        """Turn what is kept of changes in normalised units into the present ones: times [O]."""

    def _stored(self) -> Iterable[Tensor]:
        """Buffers that count as memory: of the model's only what is kept of each task."""
        kept = [self.model.old_bounds] if self.model.probabilistic else []
        apart = set(self.model.buffers()) - set(kept)
        return (buffer for buffer in self.buffers() if buffer not in apart)

    @abstractmethod
    def _add_task(self) -> None:
        """Create the parameters of one more task (called again, in order, when loading)."""

    @abstractmethod
    def _weights(self, task: int) -> Tensor: ...

    @abstractmethod
    def _new_optimisers(self) -> list[torch.optim.Adam]: ...

    def _adam(self, parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Adam:
        """An optimiser of these and, at its own rate, of the model's memory, in a second group."""
        memory = self.model.memory_parameters()
        apart = set(memory)
        own = [parameter for parameter in parameters if parameter not in apart]
        groups: list[dict[str, Any]] = [{"params": own}]
        if memory:
            groups.append({"params": memory, "lr": self.model.memory_rate})
        return torch.optim.Adam(groups, lr=rate, fused=True, capturable=own[0].is_cuda)

    def _clip_memory(self) -> None:
        """Clip the memory's gradient on its own."""
        if memory := self.model.memory_parameters():
            clip_grad_norm_(memory, self.config.clip_norm)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on: parameters, stored targets, optimiser moments."""
        return {
            "tasks": self.tasks,
            "extra_updates": self.extra_updates,
            "tensors": dict(self.state_dict()),
            "optimisers": [o.state_dict()["state"] for o in self.optimisers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned into a freshly built method.

        Raises:
            KeyError, RuntimeError, ValueError: it is not of such a method.
        """
        tasks = same_type("tasks", state["tasks"], int)
        growing = {name for name, buffer in self.named_buffers() if not buffer.numel()}
        for _ in range(tasks):
            self._add_task()
        self.tasks = tasks
        self.extra_updates = same_type("extra_updates", state["extra_updates"], int)
        tensors = self._with_bounds(state["tensors"])
        self._make_room(tensors, growing)
        for name, own in self.state_dict().items():
            same_kind(name, tensors[name], own)
        self.load_state_dict(tensors)
        self.model.protect(self.tasks)
        self.optimisers = self._new_optimisers() if tasks else []
        for optimiser, moments in zip(self.optimisers, state["optimisers"], strict=True):
            load_moments(optimiser, moments)

    def _with_bounds(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What was saved before bounds of the log-variance were kept: then all tasks had the
        latest."""
        if not self.model.probabilistic or "model.old_bounds" in tensors:
            return tensors
        latest = torch.stack([tensors["model.min_logvar"], tensors["model.max_logvar"]])
        rows = 0 if self.rehearses else max(self.tasks - 1, 0)
        return {**tensors, "model.old_bounds": latest.repeat(rows, 1, 1)}

    def _make_room(self, tensors: dict[str, Tensor], growing: Collection[str]) -> None:
        """Give the buffers that grow with the tasks, empty at first, as many rows as were saved."""
        for name, buffer in list(self.named_buffers()):
            path, _, leaf = name.rpartition(".")
            if name in tensors and name in growing:
                rows = len(same_kind(name, tensors[name], buffer, rows=True))
                room = buffer.new_empty((rows, *buffer.shape[1:]))
                setattr(self.get_submodule(path), leaf, room)
