"""Episodes in Minari's datasets: written from transitions, read as a task's first ones.

Minari 0.5 (https://minari.farama.org): a folder with data/metadata.json and data/main_data.hdf5, in
which an episode of T steps has T + 1 observations.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Space, Tuple
from torch import Tensor

from hypercrl.base.errors import UserError, unwritable
from hypercrl.replay.transitions import Batch
from hypercrl_envs.checked import LARGEST, TaskFault
from hypercrl_envs.gym_spaces import VectorObservation

TASK = "hypercrl_task"
"""Metadata of a dataset: its task's name and parameters, and the name of the sequence."""

_ROUNDING = 1e-5
"""By so much may an action of float32 lie beyond a bound, relative to half of the range."""


@dataclass(frozen=True)
class Episode:
    """T steps, as numpy arrays.

    Attributes:
        obs: [T + 1, O]; action: [T, A], from -1 to 1; reward: [T].
        terminated: whether the last step ended it for good; otherwise it was cut there.
        info: by name [T + 1], of each observation.
        seed: of the reset that it began with, where that is known.
    """

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: bool
    info: dict[str, np.ndarray]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.action)


def write_dataset(
    out: Path,
    episodes: Sequence[Episode],
    observation_space: Box,
    action_space: Box,
    env_spec: EnvSpec | None,
    about: dict[str, Any],
) -> None:
    """Write a dataset as a new folder, whole or not at all; its id is the folder's name.

    Args:
        env_spec: that the environment can be made again from, if there is one.
        about: metadata such as algorithm_name and description; under TASK what the task is.

    Raises:
        UserError: minari is not installed, there is something at `out`, or it cannot be written.
    """
    minari = _minari()
    if out.exists():
        raise UserError(f"{out} exists already and is left as it is; name another folder.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # An absolute path: Minari 0.5.4 looks for its file at a relative one joined to itself.
        with TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent.absolute()) as partial:
            data = Path(partial, "data")
            data.mkdir()
            storage = minari.dataset.minari_storage.MinariStorage.new(
                data, observation_space, action_space, env_spec
            )
            version = {"dataset_id": out.name, "minari_version": minari.__version__}
            storage.update_metadata({**version, **about})
            storage.update_episodes([_buffer(minari, episode) for episode in episodes])
            out.mkdir()
            data.rename(out / "data")
    except OSError as error:
        raise unwritable(out, error) from error


def _buffer(minari: ModuleType, episode: Episode) -> Any:
    last = np.arange(len(episode)) == len(episode) - 1
    # Not id: Minari numbers them, and joins two of one number.
    return minari.data_collector.EpisodeBuffer(
        seed=episode.seed,
        observations=episode.obs,
        actions=episode.action,
        rewards=episode.reward,
        terminations=last & episode.terminated,
        truncations=last & (not episode.terminated),
        infos=episode.info,
    )


Observed = Callable[[Tensor, Tensor, Tensor], Tensor]


def read_dataset(
    path: str | Path,
    obs_size: int,
    action_size: int,
    observed: Observed = lambda obs, reward, terminated: obs,  # noqa: ARG005
) -> list[Batch]:
    """The transitions of each episode of a dataset, on the CPU.

    Actions are those of an agent, from -1 to 1: mapped from the bounds of the dataset's action
    space, as `hypercrl_envs.gym_spaces.ActionRange` maps an agent's to them. Without bounds they
    are taken as they are. Observations that are dicts or tuples of boxes become the vector that
    `task: gym` makes of them, see `VectorObservation`.

    Args:
        path: of the dataset's folder, or its id in Minari's own folder.
        obs_size, action_size: O and A that its observations and actions are to have.
        observed: of observations [T + 1, o], rewards [T] and terminations, bool [T], those of the
            task, see `hypercrl_envs.Task.observed`: with a learned reward it is the dataset's.

    Raises:
        UserError: minari is not installed, there is no dataset or none in it, or one that has not
            T + 1 finite observations [O] and T actions [A] within bounds.
    """
    dataset = _opened(path)
    with _theirs(path):
        episodes = list(dataset.iterate_episodes())
    if not episodes:
        raise UserError(f"{path} has no episodes in it.")
    spaces = dataset.observation_space, dataset.action_space
    sizes = obs_size, action_size
    return [_batch(e, *sizes, *spaces, f"{path}, episode {e.id}", observed) for e in episodes]


def recorded_of(path: str | Path) -> dict[str, Any] | None:
    """The task that an export of hypercrl says its dataset is of, see `write_dataset`; None: it
    is somebody else's, or says nothing.

    Raises:
        UserError: as `read_dataset`.
    """
    task = _opened(path).storage.metadata.get(TASK)
    return task if isinstance(task, dict) else None


def _opened(path: str | Path) -> Any:
    minari = _minari()
    folder = Path(path)
    if not folder.is_dir():
        folder = minari.storage.datasets_root_dir.get_dataset_path(str(path))
    if not folder.is_dir():
        own = minari.storage.datasets_root_dir.get_dataset_path()
        raise UserError(f"{path} is neither a folder here nor a dataset in Minari's own, {own}.")
    with _theirs(path):
        return minari.MinariDataset(folder / "data" if (folder / "data").is_dir() else folder)


@contextmanager
def _theirs(path: str | Path) -> Iterator[None]:
    """Around what Minari, h5py and json read, and what they raise of a folder that is none."""
    try:
        yield
    except Exception as error:
        raise UserError(f"{path} cannot be read as a dataset of Minari: {error}") from error


def _batch(
    episode: Any,
    obs_size: int,
    action_size: int,
    observation_space: Space,
    action_space: Space,
    where: str,
    observed: Observed,
) -> Batch:
    observations = episode.observations
    if isinstance(observation_space, Dict | Tuple):
        try:
            vector = VectorObservation(observation_space, where)
            observations = vector.rows(observations, len(episode.rewards) + 1, where)
        except (ValueError, TaskFault) as error:
            raise UserError(str(error)) from error
    try:
        obs = torch.as_tensor(np.asarray(observations), dtype=torch.float32)
        action = torch.as_tensor(np.asarray(episode.actions), dtype=torch.float32)
        reward = torch.as_tensor(np.asarray(episode.rewards), dtype=torch.float32)
        terminated = torch.as_tensor(np.asarray(episode.terminations), dtype=torch.bool)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: observations and actions are no vectors ({error}).") from error
    steps = len(episode.rewards)
    if obs.dim() == 2 and len(obs) == steps + 1 and reward.shape == terminated.shape == (steps,):
        obs = observed(obs, reward, terminated)
    wanted = (steps + 1, obs_size), (steps, action_size)
    if (tuple(obs.shape), tuple(action.shape)) != wanted:
        raise UserError(
            f"{where} has observations {list(obs.shape)} and actions {list(action.shape)}; with "
            f"{steps} steps this task needs {list(wanted[0])} and {list(wanted[1])}."
        )
    if not all(bool((x.abs() <= LARGEST).all()) for x in (obs, action)):  # false for NaN
        raise UserError(f"{where} has numbers that are not finite, or beyond {LARGEST:g}.")
    return Batch(obs[:-1], agents_actions(action, action_space, where), obs[1:])


def agents_actions(action: Tensor, space: Space, where: str) -> Tensor:
    """Actions [T, A] of an environment as those of an agent: -1 and 1 are the bounds of `space`.

    Args:
        space: in which they were recorded; without bounds they are an agent's already.
        where: names them in messages.

    Raises:
        UserError: they are out of these bounds.
    """
    own = action.double()
    low, high = -torch.ones(action.shape[1]), torch.ones(action.shape[1])
    if isinstance(space, Box) and space.is_bounded():
        low, high = (torch.tensor(b.astype(np.float64)) for b in (space.low, space.high))
        free = high > low
        own = torch.where(free, (2 * own - low - high) / torch.where(free, high - low, 1.0), 0.0)
    if own.abs().max() > 1 + _ROUNDING:
        raise UserError(
            f"{where} has actions from {float(action.min()):g} to {float(action.max()):g}, beyond "
            f"the bounds {low.tolist()} to {high.tolist()} of its action space."
        )
    return own.clamp(-1, 1).float()


def _minari() -> ModuleType:
    try:
        for part in ("data_collector", "dataset.minari_storage", "storage.datasets_root_dir"):
            import_module(f"minari.{part}")
        import_module("h5py")
    except ImportError as error:
        raise UserError(
            f"datasets need Minari ({error}): pip install 'hypercrl[minari]'"
        ) from error
    return import_module("minari")
