"""How the value behind a plan's end is learned: by temporal differences on the task's replay."""

from typing import Any

import torch
from torch import Tensor

from hypercrl.base.saved import load_moments, same_kind
from hypercrl.replay import Replay
from hypercrl.replay.n_step import n_step_returns
from hypercrl.replay.transitions import random_rows
from hypercrl.training.experiment import Experiment
from hypercrl_envs import close


class ValueLearner:
    """Trains the value of the task that is learned; those of old tasks stay as they are.

    Both networks f_j are drawn to y = Σ_{k<m} γ^k r_k + γ^m min_j f̄_j(s_m) of n = `value.steps`
    steps that the robots have made, see `n_step_returns`, by Adam on the squared error. The target
    networks follow, f̄ ← f̄ + τ (f − f̄), τ = `value.target_rate`. As the steps are those of plans of
    all ages and of exploration, it is the value of what was done lately, not of the present plans.

    Args:
        experiment: the parts; it has values.
        task: number of the task, from 0.
        replay: of the task.

    Attributes:
        sampler: what transitions are drawn by, on the device of the replay.
    """

    def __init__(self, experiment: Experiment, task: int, replay: Replay) -> None:
        device = experiment.device
        self.config = experiment.config.value
        self.batch_size = experiment.config.protocol.batch_size
        self.replay = replay
        self.sampler = experiment.streams.get("value", device)
        self.value = experiment.values[task]
        self.targets = [parameter.detach().clone() for parameter in self.value.parameters()]
        self.adam = torch.optim.Adam(
            list(self.value.parameters()),
            lr=self.config.learning_rate,
            fused=True,
            capturable=device.type == "cuda",
        )
        self._model = experiment.model
        self._env = experiment.sequence.make(task)
        # In place, as a graph of training steps reads them.
        self._held = torch.zeros((), dtype=torch.int64, device=device)
        self._returns, self._factors = torch.zeros(2, replay.capacity, device=device)
        self._last = torch.zeros(replay.capacity, dtype=torch.int64, device=device)

    def close(self) -> None:
        """The task is over."""
        close(self._env)

    def fit(self) -> None:
        """Measure values in a unit of what the random steps have paid."""
        self.value.fit(self._rewards())

    def _rewards(self) -> Tensor:
        held = self.replay.contents()
        return self._env.reward(held.obs, held.action, held.next_obs)

    @torch.no_grad()
    def follow(self) -> None:
        """Take on the model's scales, and find the targets of all that the replay holds, before a
        round of training steps."""
        self.value.standardise(*self._model.observation_scales())
        held, rewards = self.replay.contents(), self._rewards()
        ends = torch.zeros_like(rewards, dtype=torch.bool)
        if (termination := self._env.termination) is not None:
            ends = termination(held.obs, held.action, held.next_obs)
        successors = self.replay.successors()
        steps = (self.config.steps, self.config.discount)
        found = n_step_returns(rewards / self.value.unit, ends, successors, *steps)
        for own, new in zip((self._returns, self._factors, self._last), found, strict=True):
            own[: len(held)] = new
        self._held.fill_(len(held))

    def training_step(self) -> Tensor:
        """The mean squared error of both networks on a batch, in units of u, after `updates` steps;
        never waits for the device."""
        loss = self._step()
        for _ in range(self.config.updates - 1):
            loss = self._step()
        return loss

    def _step(self) -> Tensor:
        slots = random_rows(self._held, self.batch_size, self.sampler)
        with torch.no_grad():
            reached = self.replay.next_obs[self._last[slots]]
            behind = self.value.each(reached, self.targets).amin(0)
            target = self._returns[slots] + self._factors[slots] * behind
        self.adam.zero_grad()
        error = self.value.each(self.replay.obs[slots]) - target
        loss = error.square().mean()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            for target, parameter in zip(self.targets, self.value.parameters(), strict=True):
                target.lerp_(parameter, self.config.target_rate)
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """What training goes on from beside the value itself; the sampler is kept elsewhere."""
        return {"targets": self.targets, "moments": self.adam.state_dict()["state"]}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned.

        Raises:
            KeyError, ValueError: it is not of such a value.
        """
        for number, (own, saved) in enumerate(zip(self.targets, state["targets"], strict=True)):
            own.copy_(same_kind(f"target {number}", saved, own))
        load_moments(self.adam, state["moments"])
