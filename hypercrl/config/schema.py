"""Typed configuration: dataclasses give names and types, YAML in configs/ gives values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from hypercrl.agent.exploration import ExplorationConfig
from hypercrl.agent.task_inference import InferenceConfig
from hypercrl.base.settings import choice, number
from hypercrl.dynamics.context_model import ContextConfig
from hypercrl.memory import MEMORIES, MemoryConfig
from hypercrl.methods import METHODS, MethodConfig
from hypercrl.planning import PLANNERS, PlannerConfig


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

    hidden: list[int] = number([200, 200], least=1)
    probabilistic: bool = False


@dataclass
class ProtocolConfig:
    """What every method is given alike; counts are per task.

    The prediction error is over the windows of held-out episodes that begin at step `heldout_from`
    or later: what came before, a memory may have seen.
    """

    num_tasks: int | None = number(None, least=1)
    random_steps: int = number(least=1)
    planned_steps: int = number(least=0)
    update_every: int = number(least=1)
    updates: int = number(least=1)
    first_updates: int | None = number(None, least=1)
    batch_size: int = number(100, least=1)
    replay_capacity: int = number(10_000, least=1)
    eval_every: int = number(least=1)
    eval_episodes: int = number(5, least=1)
    final_episodes: int = number(10, least=1)
    prediction_horizon: int = number(10, least=1)
    heldout_episodes: int = number(10, least=1)
    heldout_from: int = number(0, least=0)
    checkpoint_every: int = number(1000, least=1)


@dataclass
class TrainConfig:
    """Everything a run depends on.

    `task_id` says whether the agent is given the task's label and boundaries, or infers them;
    `logger` where copies of metrics.jsonl go, one name or a list of those in
    `hypercrl.runs.trackers.LOGGERS`.
    """

    preset: str = MISSING
    env: EnvConfig = MISSING
    method: MethodConfig = MISSING
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    memory: MemoryConfig = MISSING
    context: ContextConfig = field(default_factory=ContextConfig)
    task_id: str = choice("given", "given", "inferred")
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    planner: PlannerConfig = MISSING
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    seed: int = number(0, least=0)
    device: str = "auto"
    logger: Any = field(default_factory=lambda: ["tensorboard"])
    run_dir: str | None = None
    resume: str | None = None


@dataclass
class PlayConfig:
    """Replaying a checkpoint; `realtime` is at the pace of the task, with a look at the clock.

    `watch` prints at the end what the iterations of the planner's searches came to.
    """

    run: str = MISSING
    task: int = 1
    tiled: bool = False
    realtime: bool = False
    watch: bool = False
    checkpoint: str = "latest"
    episodes: int = number(3, least=1)
    video: str | None = None
    seed: int = number(0, least=0)
    device: str = "cpu"
    size: int = number(480, least=64, most=4096)
    camera: str = "front"


@dataclass
class RecallConfig:
    """One memory encoder on associative recall: `pairs` are written, then as many asked for."""

    preset: str = MISSING
    memory: MemoryConfig = MISSING
    pairs: int = number(least=8)
    steps: int = number(least=1)
    batch_size: int = number(least=1)
    learning_rate: float = number(0.006, least=0)
    clip_norm: float = number(1.0, least=0)
    test_sequences: int = number(least=1)
    seed: int = number(0, least=0)
    device: str = "auto"
    run_dir: str = MISSING


def in_groups(command: str, words: Sequence[str]) -> list[str]:
    """Words of a command, with `preset=` under the name that Hydra knows that group by.

    Presets of recall and of training hold different settings, so they are two groups.
    """
    if command != "recall":
        return list(words)
    return [f"recall={w.removeprefix('preset=')}" if w.startswith("preset=") else w for w in words]


def register() -> None:
    """Put the schemas where the YAML files name them."""
    store = ConfigStore.instance()
    store.store(name="train_schema", node=TrainConfig)
    store.store(name="play_schema", node=PlayConfig)
    store.store(name="recall_schema", node=RecallConfig)
    for name, (_, schema) in METHODS.items():
        store.store(group="method", name=f"{name}_schema", node=schema)
    for name, (_, schema) in MEMORIES.items():
        store.store(group="memory", name=f"{name}_schema", node=schema)
    for name, (_, schema) in PLANNERS.items():
        store.store(group="planner", name=f"{name}_schema", node=schema)
