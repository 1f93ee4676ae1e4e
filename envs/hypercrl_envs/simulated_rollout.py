"""What action sequences really lead to: the rollout of an oracle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import torch
from torch import Tensor

from hypercrl_envs.task import Task


class SimulatedRollout:
    """Rolls actions out in copies of the robots' tasks; equal to stepping them, bit for bit.

    Copies step in threads, since MuJoCo lets go of Python's lock while it steps. `mujoco.rollout`
    would take a whole horizon of controls at once; here the control of a step depends on where the
    tip is by then, and a latch on the knob.

    Args:
        robots: B tasks; a rollout starts from the state in which it finds them, and leaves it.
        make: makes a copy of the task, in any state.
        threads: copies that step at the same time.

    Raises:
        ValueError: the task cannot be set to a state at once (PyBullet, Gymnasium): it would be
            replayed from the start of its episode for every sample.
    """

    def __init__(self, robots: Sequence[Task], make: Callable[[], Task], threads: int) -> None:
        if not robots[0].restores_at_once:
            raise ValueError(
                f"{robots[0].caption!r} cannot be rolled out by its simulator: only tasks in "
                "MuJoCo return to a state at once"
            )
        self._robots = list(robots)
        self._copies: SimpleQueue[Task] = SimpleQueue()
        for _ in range(threads):
            copy = make()
            copy.reset(seed=0)
            self._copies.put(copy)
        self._threads = ThreadPoolExecutor(threads)

    def __call__(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Observations along action sequences.

        Args:
            obs: [B, O] of the robots as they stand.
            actions: [B, K, H, A] in [-1, 1].

        Returns:
            [B, K, H + 1, O], the start included; device and type of `obs`. Where an episode ends,
            its last observation is repeated.

        Raises:
            TaskFault: a simulator that failed, or whose state went bad.
        """
        robots, samples = actions.shape[:2]
        starts = [robot._get_physics() for robot in self._robots]
        jobs = [
            (starts[b], sequence) for b in range(robots) for sequence in actions[b].cpu().numpy()
        ]
        reached = np.stack(list(self._threads.map(self._roll_out, jobs)))
        after = torch.from_numpy(reached).to(obs).unflatten(0, (robots, samples))
        before = obs[:, None, None].expand(-1, samples, 1, -1)
        return torch.cat([before, after], dim=2)

    def _roll_out(self, job: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Observations [H, O] after each of the actions [H, A] from a state."""
        physics, actions = job
        copy = self._copies.get()
        try:
            copy._set_physics(physics)
            observations: list[np.ndarray] = []
            before = copy._observe() if copy.ends else None
            for action in actions:
                observations.append(copy._advanced(action, f"{copy.caption}, an imagined step"))
                if before is not None:
                    transition = (torch.from_numpy(x) for x in (before, action, observations[-1]))
                    if any(copy._ending(*transition)):
                        break
                    before = observations[-1]
        finally:
            self._copies.put(copy)
        repeated = len(actions) - len(observations)
        return np.stack(observations + observations[-1:] * repeated)
