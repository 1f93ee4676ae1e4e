"""Typed configuration: dataclasses give names and types, YAML in configs/ gives values."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from hypercrl.methods import HnetConfig, MethodConfig
from hypercrl.planning import CEMConfig


@dataclass
class EnvConfig:
    """A task sequence: a name and, in order, each task's name and parameters.

    `pad` brings tasks of different sizes to the largest.
    """

    name: str = MISSING
    tasks: list[Any] = MISSING
    pad: bool = False


@dataclass
class DynamicsConfig:
    """The main network."""

    hidden: list[int] = field(default_factory=lambda: [200, 200])
    probabilistic: bool = False


@dataclass
class ExplorationConfig:
    """Noise; standard deviations in units of half the action range."""

    correlation: float = 0.8
    random_std: float = 0.8
    planned_std: float = 0.25


@dataclass
class ProtocolConfig:
    """What every method is given alike; counts are per task."""

    num_tasks: int | None = None
    random_steps: int = MISSING
    planned_steps: int = MISSING
    update_every: int = MISSING
    updates: int = MISSING
    first_updates: int | None = None
    batch_size: int = 100
    replay_capacity: int = 10_000
    eval_every: int = MISSING
    eval_episodes: int = 5
    final_episodes: int = 10
    prediction_horizon: int = 10
    heldout_episodes: int = 10
    checkpoint_every: int = 1000


@dataclass
class TrainConfig:
    """Everything a run depends on."""

    preset: str = MISSING
    env: EnvConfig = MISSING
    method: MethodConfig = MISSING
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    planner: CEMConfig = MISSING
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    seed: int = 0
    device: str = "auto"
    run_dir: str | None = None
    resume: str | None = None


@dataclass
class PlayConfig:
    """Replaying a checkpoint."""

    run: str = MISSING
    task: int = 1
    checkpoint: str = "latest"
    episodes: int = 3
    video: str | None = None
    seed: int = 0
    device: str = "cpu"
    size: int = 480
    camera: str = "front"


def register() -> None:
    """Put the schemas where the YAML files name them."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="play_schema", node=PlayConfig)
    store.store(group="method", name="hnet_schema", node=HnetConfig)
    store.store(group="method", name="baseline_schema", node=MethodConfig)
    store.store(group="planner", name="cem_schema", node=CEMConfig)
