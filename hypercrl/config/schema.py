"""Typed configuration: dataclasses give names and types, YAML in configs/ gives values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypercrl.agent.exploration import ExplorationConfig
from hypercrl.agent.task_inference import InferenceConfig
from hypercrl.agent.value import ValueConfig
from hypercrl.base.settings import choice, group, number, place, setting
from hypercrl.dynamics.context_model import ContextConfig
from hypercrl.memory import MemoryConfig
from hypercrl.methods import MethodConfig
from hypercrl.planning import PlannerConfig

LARGEST_SEED = 2**63 - 1
LEARNED = ("planner.dynamics=model",)
"""What settings of learning go with: with a simulator's dynamics nothing is learned."""

MOST_EPISODES = 10_000
"""Of one evaluation, which has a robot for each of them and can only be begun anew."""
PLAYED = ("format=minari", "source=rollout")
"""What settings of an export's episodes go with."""


@dataclass
class EnvConfig:
    """A task sequence."""

    name: str = setting(help="of the sequence, as reports show it")
    tasks: list[Any] = setting(help="in order, each task's name and parameters")
    pad: bool = setting(False, help="bring tasks of different sizes to the largest")


@dataclass
class DynamicsConfig:
    """The main network."""

    hidden: list[int] = number([200, 200], least=1, help="width of each hidden layer")
    probabilistic: bool = setting(False, help="predict a log-variance beside the mean")
    variance_weight: float = number(
        0.0,
        least=0,
        most=1,
        only_with=("probabilistic",),
        help="β: errors count by variance^(β − 1); 0 is the likelihood, 1 as without a variance",
    )


@dataclass
class ProtocolConfig:
    """What every method is given alike; counts are per task."""

    num_tasks: int | None = number(
        None, least=1, help="the first so many tasks of the sequence; null is all of them"
    )
    order: list[int] | None = number(
        None,
        least=1,
        help="tasks to learn, by their numbers from 1, in this order; null is the sequence's own",
    )
    robots: int = number(
        1,
        least=1,
        most=1024,
        help="robots of the task that act at once, on a GPU 16 are quick; "
        "a step is one of one robot",
    )
    random_steps: int = number(least=1, help="steps of exploration before anything is planned")
    planned_steps: int = number(least=0, help="steps with the planner, which follow")
    blur: int = number(
        0,
        least=0,
        help="steps of a task over which episodes of the one before give way to its own; "
        "0: all at once",
    )
    update_every: int = number(least=1, help="planned steps between rounds of training")
    updates: int = number(least=1, help="training steps in a round")
    first_updates: int | None = number(
        None, least=1, help="training steps in a task's first round; null is `updates`"
    )
    batch_size: int = number(
        100,
        least=1,
        only_with=("/memory=none", "/context.always=false"),
        help="transitions in a training step",
    )
    replay_capacity: int = number(
        10_000, least=1, help="transitions of the present task that are kept to train on"
    )
    eval_every: int = number(least=1, help="planned steps between evaluations on all tasks")
    eval_tasks: int | None = number(
        None,
        least=0,
        help="old tasks, drawn each time, evaluated before the end of the run; null is all",
    )
    eval_episodes: int = number(
        5, least=1, most=MOST_EPISODES, help="episodes a task in these evaluations"
    )
    final_episodes: int = number(
        10, least=1, most=MOST_EPISODES, help="episodes a task in the evaluation at a task's end"
    )
    prediction_horizon: int = number(
        10, least=1, help="open-loop steps that the prediction error is measured over"
    )
    heldout_episodes: int = number(
        10,
        least=1,
        most=MOST_EPISODES,
        help="random episodes a task for the prediction error, never trained on",
    )
    heldout_from: int = number(
        0, least=0, help="first step of these episodes at which a prediction may begin"
    )
    checkpoint_every: int = number(
        1000, least=1, help="environment steps between checkpoints; five minutes at most"
    )


@dataclass
class ReplayConfig:
    """What the replay begins with."""

    datasets: list[str | None] = group(
        list,
        help="for each task in order a Minari dataset in place of its random steps, or null",
    )


@dataclass
class TrainConfig:
    """Everything a run depends on."""

    preset: str = setting(help="how long, and how the planner searches")
    env: EnvConfig = setting(help="the task sequence")
    method: MethodConfig = setting(
        only_with=LEARNED, help="how parameters survive a change of task"
    )
    dynamics: DynamicsConfig = group(DynamicsConfig, only_with=LEARNED, help="the main network")
    memory: MemoryConfig = setting(
        only_with=LEARNED, help="what the agent remembers of its episode"
    )
    context: ContextConfig = group(
        ContextConfig,
        only_with=("memory|context.always",),
        help="how a memory is trained, and how its context reaches the dynamics",
    )
    task_id: str = choice(
        "given",
        "given",
        "inferred",
        only_with=LEARNED,
        help="whether the agent is told the task and its boundaries, or infers them",
    )
    inference: InferenceConfig = group(
        InferenceConfig,
        only_with=("task_id=inferred",),
        help="when the agent infers a change; with task_id=inferred",
    )
    planner: PlannerConfig = setting(help="how action sequences are searched")
    exploration: ExplorationConfig = group(
        ExplorationConfig,
        only_with=LEARNED,
        help="noise; deviations are in units of half the action range",
    )
    value: ValueConfig = group(
        ValueConfig,
        only_with=LEARNED,
        help="what counts behind the end of a plan: by default nothing does",
    )
    protocol: ProtocolConfig = group(
        ProtocolConfig,
        only_with=LEARNED,
        but=("num_tasks", "order", "final_episodes"),
        help="what every method is given alike; counts are per task",
    )
    replay: ReplayConfig = group(
        ReplayConfig, only_with=LEARNED, help="what the replay begins with"
    )
    seed: int = number(
        0,
        least=0,
        most=LARGEST_SEED,
        help="of everything: initial weights, exploration, planner, start states",
    )
    device: str = setting("auto", help="cpu, cuda, cuda:1; auto is a GPU where there is one")
    threads: int | None = number(
        None, least=1, most=1024, help="of the processor; null is what torch takes, and is kept"
    )
    simulators: int | None = number(
        None,
        least=1,
        most=1024,
        only_with=LEARNED,
        help="processes that step robots; "
        "null: on a GPU as cores and memory allow, at most 16, else 1",
    )
    logger: Any = setting(
        ["tensorboard"],
        only_with=LEARNED,
        help="copies of the metrics: tensorboard, wandb, trackio, mlflow, or a list of them",
    )
    run_dir: str | None = place(
        None, help="folder of the run; left out, a dated one under runs/train"
    )
    resume: str | None = place(
        None,
        help="folder of a run to go on with; only device=, checkpoint= and trust= beside it",
    )
    extend: str | None = place(
        None,
        help="a finished run: its agent learns further tasks, of env= or num_tasks=, in run_dir",
    )
    checkpoint: str | None = setting(
        None, only_with=("resume",), help="which one of that run's; left out, the newest sound one"
    )
    trust: bool = setting(
        False, help="resume, extend: import code that the run names, though a stranger wrote it"
    )

    @property
    def uses_context(self) -> bool:
        """Whether the model has a context, of a memory or the constant one of `context.always`;
        then it is trained on windows of episodes."""
        return self.memory.name != "none" or self.context.always


@dataclass
class PlayConfig:
    """Replaying a checkpoint."""

    run: str = place(help="the run's folder")
    task: int = setting(1, help="which task of the sequence, from 1")
    tiled: bool = setting(False, help="show all tasks side by side instead")
    tasks: list[int] | None = number(
        None,
        least=1,
        help="tasks to show side by side, by their numbers from 1; null is all of them",
    )
    realtime: bool = setting(
        False, help="at the task's control rate, with a count of the deadlines that were met"
    )
    watch: bool = setting(
        False, help="print at the end what each iteration of the planner's searches came to"
    )
    checkpoint: str = setting("latest", help="latest, or after_task_N")
    trust: bool = setting(False, help="import code that the run names, though a stranger wrote it")
    episodes: int = number(3, least=1, help="how many are played")
    video: str | None = place(None, help="file to write, .mp4; null draws nothing")
    title: str | None = setting(
        None,
        help="words above the picture, and how many tasks are solved at that moment",
    )
    seed: int = number(0, least=0, most=LARGEST_SEED, help="of start states and of the planner")
    device: str = setting("cpu", help="cpu, cuda, cuda:1; auto is a GPU where there is one")
    size: int = number(480, least=64, most=4096, help="width and height of a task, pixels")
    camera: str | None = setting(
        None, help="front, side or top; null is what the sequence says, or front"
    )


@dataclass
class ExportConfig:
    """A run's data or model for other programs."""

    run: str = place(help="the run's folder")
    out: str = place(help="what to write, not there yet: a folder, or a .pt2 or .onnx file")
    format: str = choice(
        "minari",
        "minari",
        "torch_export",
        "onnx",
        help="episodes as a dataset, or a model as a program",
    )
    task: int = setting(1, help="which task of the sequence, from 1")
    source: str = choice(
        "rollout",
        "rollout",
        "replay",
        only_with=("format=minari",),
        help="of episodes: played by the agent now, or what the replay held at the task's end",
    )
    episodes: int = number(10, least=1, only_with=PLAYED, help="how many to play")
    part: str = choice(
        "act",
        "act",
        "dynamics",
        only_with=("format=torch_export|onnx",),
        help="of a model: the whole of acting, or the dynamics alone",
    )
    checkpoint: str = setting(
        "latest",
        only_with=("source=rollout",),
        help="name of a checkpoint of the run; a replay is read from the task's own",
    )
    seed: int = number(
        0,
        least=0,
        most=LARGEST_SEED,
        only_with=PLAYED,
        help="of the start states and the planner's noise",
    )
    trust: bool = setting(False, help="import code that the run names, though a stranger wrote it")


@dataclass
class RecallConfig:
    """One memory encoder on associative recall."""

    preset: str = setting(help="how long")
    memory: MemoryConfig = setting(help="the encoder")
    pairs: int = number(least=8, help="of a key and a value, written and then asked for")
    steps: int = number(least=1, help="training steps")
    batch_size: int = number(least=1, help="sequences in a training step")
    learning_rate: float = number(0.006, least=0, help="of Adam")
    clip_norm: float = number(
        1.0, least=0, help="largest norm of a gradient, which is scaled down to it"
    )
    test_sequences: int = number(least=1, help="sequences that recall is counted on")
    seed: int = number(0, least=0, most=LARGEST_SEED, help="of initial weights and sequences")
    device: str = setting("auto", help="cpu, cuda, cuda:1; auto is a GPU where there is one")
    run_dir: str = place(help="folder for the result")


def learned_tasks(config: TrainConfig) -> list[Any]:
    """Names and parameters of the tasks of a run: in its `order`, of that the first `num_tasks`.

    Raises:
        ValueError: `order` names a task twice, or one that the sequence does not have.
    """
    tasks, order = config.env.tasks, config.protocol.order
    if order is not None:
        if not 0 < len(set(order)) == len(order) or not set(order) <= set(range(1, len(tasks) + 1)):
            raise ValueError(
                f"protocol.order={order}: give numbers of tasks from 1 to {len(tasks)}, which "
                f"the sequence {config.env.name} has, each once at most."
            )
        tasks = [tasks[number - 1] for number in order]
    return tasks[: config.protocol.num_tasks]


def in_groups(command: str, words: Sequence[str]) -> list[str]:
    """Words of a command, with `preset=` under the name that Hydra knows that group by.

    Presets of recall and of training hold different settings, so they are two groups.
    """
    if command != "recall":
        return list(words)
    return [f"recall={w.removeprefix('preset=')}" if w.startswith("preset=") else w for w in words]


COMMANDS = {
    "train": TrainConfig,
    "play": PlayConfig,
    "recall": RecallConfig,
    "export": ExportConfig,
}
