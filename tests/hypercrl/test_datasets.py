"""Recorded episodes: what is exported is what happened, and what is read is trained on."""

import importlib
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple, flatten, flatten_space
from torch import Tensor

from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.replay import Replay
from hypercrl.replay.datasets import Episode, agents_actions, read_dataset, write_dataset
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.training.open_run import open_run
from hypercrl.training.recorded import env_spec, from_replay, rolled_out
from hypercrl_envs import make_task
from hypercrl_envs.gym_spaces import ActionRange

SETTINGS = [
    "train",
    "env=push",
    "method=finetune",
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[8]",
    "protocol={num_tasks: 2, random_steps: 70, planned_steps: 12, update_every: 6, updates: 5}",
    "protocol={eval_every: 1000, eval_episodes: 1, final_episodes: 1, heldout_episodes: 1}",
    "protocol={prediction_horizon: 3}",
    "planner={samples: 8, elites: 2, horizon: 2, iterations: 1}",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "pushed"
    main([*SETTINGS, f"run_dir={path}"])
    return path


def held(run: Path, checkpoint: str) -> dict:
    return load_checkpoint(run / "checkpoints" / f"{checkpoint}.safetensors")["learner"]["replay"]


def test_rollouts_are_what_the_task_does(run: Path):
    """Played back in a task of its own, the actions give the same states and rewards."""
    experiment = open_run(run, "cpu")
    first, second = rolled_out(experiment, 1, experiment.robot(1), episodes=2, seed=3)
    assert not np.array_equal(first.obs[0], second.obs[0])
    task = make_task("push", densities=[100, 500])
    for episode in (first, second):
        assert episode.obs.shape == (61, 10)
        np.testing.assert_array_equal(task.reset(seed=episode.seed)[0], episode.obs[0])
        for step, action in enumerate(episode.action):
            obs, reward, *_, info = task.step(action)
            np.testing.assert_array_equal(obs, episode.obs[step + 1])
            assert reward == episode.reward[step]
            assert info["success"] == episode.info["success"][step + 1]


def test_the_replay_is_what_training_lived_through(run: Path):
    experiment = open_run(run, "cpu")
    (whole, rest) = from_replay(run, experiment, 0, experiment.robot(0))
    assert (len(whole), len(rest)) == (60, 22)
    stored = held(run, "after_task_1")
    for name, parts in (
        ("obs", (whole.obs[:-1], rest.obs[:-1])),
        ("next_obs", (whole.obs[1:], rest.obs[1:])),
        ("action", (whole.action, rest.action)),
    ):
        np.testing.assert_array_equal(np.concatenate(parts), stored[name])
    task = make_task("push")
    task.reset(seed=0)
    obs, action, next_obs = whole.obs[:-1], whole.action, whole.obs[1:]
    paid = task.reward(*map(torch.from_numpy, (obs, action, next_obs)))
    np.testing.assert_array_equal(whole.reward, paid.double())
    assert not whole.terminated


def test_episodes_of_a_full_replay():
    replay = Replay(5, 1, 1, torch.device("cpu"))
    for length in (2, 3, 2):
        replay.begin_episode()
        for _ in range(length):
            number = torch.full((1,), float(replay._added))
            replay.add(number, number, number + 1)
    parts = [episode.obs[:, 0].tolist() for episode in replay.episodes()]
    assert parts == [[2, 3, 4], [5, 6]]
    replay.add(*(torch.full((1,), 7.0),) * 3)
    parts = [episode.obs[:, 0].tolist() for episode in replay.episodes()]
    assert parts == [[3, 4], [5, 6, 7]]
    assert Replay(5, 1, 1, torch.device("cpu")).episodes() == []


def test_environments_can_be_made_again(run: Path):
    experiment = open_run(run, "cpu")
    spec = env_spec(experiment, 1, experiment.robot(1))
    assert spec is not None
    again = gymnasium.make(gymnasium.envs.registration.EnvSpec.from_json(spec.to_json()))
    assert again.unwrapped.caption == "push 100 | 500 kg/m³"  # type: ignore[reportAttributeAccessIssue]


def episodes(count: int = 2, steps: int = 3, actions: float = 1.0) -> list[Episode]:
    generator = np.random.default_rng(0)
    return [
        Episode(
            generator.normal(size=(steps + 1, 10)).astype(np.float32),
            actions * np.ones((steps, 2), np.float32),
            generator.normal(size=steps),
            terminated=number == 0,
            info={"success": np.arange(steps + 1) > 2},
            seed=number,
        )
        for number in range(count)
    ]


def write(path: Path, recorded: list[Episode], bound: float = 1.0) -> Path:
    spaces = make_task("push").observation_space, Box(-bound, bound, (2,))
    write_dataset(path, recorded, *spaces, None, {"algorithm_name": "none"})
    return path


@pytest.mark.extra("minari")
def test_datasets_hold_the_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    minari = importlib.import_module("minari")
    monkeypatch.chdir(tmp_path)
    recorded = episodes()
    write(Path("folder/mine-v0"), recorded)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "folder"))
    read = list(minari.load_dataset("mine-v0").iterate_episodes())
    for wanted, got in zip(recorded, read, strict=True):
        np.testing.assert_array_equal(got.observations, wanted.obs)
        np.testing.assert_array_equal(got.actions, wanted.action)
        np.testing.assert_array_equal(got.rewards, wanted.reward)
        np.testing.assert_array_equal(got.infos["success"], wanted.info["success"])
        ends = got.terminations.tolist(), got.truncations.tolist()
        last = [False, False, True]
        assert ends == ((last, [False] * 3) if wanted.terminated else ([False] * 3, last))
    for name in ("folder/mine-v0", "folder/mine-v0/data", "mine-v0"):
        batch = read_dataset(name, 10, 2)[1]
        np.testing.assert_array_equal(batch.obs, recorded[1].obs[:-1])
        np.testing.assert_array_equal(batch.next_obs, recorded[1].obs[1:])
    assert [p.name for p in Path("folder").iterdir()] == ["mine-v0"]
    stronger = write(Path("stronger-v0"), recorded, bound=4.0)
    assert torch.equal(read_dataset(stronger, 10, 2)[0].action, torch.full((3, 2), 0.25))
    with pytest.raises(UserError, match="exists already"):
        write(Path("folder/mine-v0"), recorded)


@pytest.mark.extra("minari")
@pytest.mark.parametrize(
    ("recorded", "sizes", "message"),
    [
        (episodes(), (9, 2), r"observations \[4, 10\].*needs \[4, 9\] and \[3, 2\]"),
        (episodes(actions=2.0), (10, 2), r"actions from 2 to 2, beyond the bounds \[-1.0, -1.0\]"),
        (episodes(actions=np.nan), (10, 2), "not finite"),
        ([], (10, 2), "no episodes"),
        ([replace(each, obs=1e30 * each.obs) for each in episodes()], (10, 2), "beyond 1e\\+15"),
    ],
)
def test_datasets_that_do_not_fit_are_refused(tmp_path: Path, recorded, sizes, message):
    with pytest.raises(UserError, match=message):
        read_dataset(write(tmp_path / "mine", recorded), *sizes)


def test_actions_of_an_environment_become_those_that_its_task_maps_to_them():
    """An environment within ±0.4 takes 1 for 0.4, and a dataset of it says 0.4."""
    space = Box(np.array([-0.4, 0.0, 3.0]), np.array([0.4, 5.0, 3.0]), dtype=np.float64)
    given = torch.from_numpy(np.stack([space.low, space.high, [0.1, 1.0, 3.0]])).float()
    wanted = torch.tensor([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0], [0.25, -0.6, 0.0]])
    got = agents_actions(given, space, "mine")
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(ActionRange(space, "mine")(got), given)
    unbounded = Box(-np.inf, np.inf, (3,))
    assert torch.equal(agents_actions(wanted, unbounded, "mine"), wanted)
    for where in (space, unbounded):
        with pytest.raises(UserError, match=r"mine has actions from .* to 5.5, beyond the bounds"):
            agents_actions(given + 0.5, where, "mine")


INNER = Dict({"b": Box(-1.0, 1.0, (3,)), "a": Box(0, 9, (2,), np.int64)})
NESTED = Dict({"observation": Box(-1.0, 1.0, (1,)), "goals": INNER})
PAIR = Tuple((Box(-1.0, 1.0, (3,)), Box(-9.0, 9.0, (1,))))


class Goals(gymnasium.Env):
    """Its observations are drawn from `NESTED`."""

    observation_space = NESTED
    action_space = Box(-2.0, 2.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space = Dict({**NESTED.spaces}, seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


gymnasium.register("DatasetGoals-v0", f"{__name__}:Goals", max_episode_steps=20)


def paid(obs: Tensor, action: Tensor, next_obs: Tensor) -> Tensor:
    return action.sum(-1)


def flat(space: Space, observation: Any) -> np.ndarray:
    return np.asarray(flatten(space, observation), np.float32)


def stacked(observations: Sequence[Any]) -> Any:
    """What Minari collects of them: the parts one after another."""
    first = observations[0]
    if isinstance(first, dict):
        return {key: stacked([each[key] for each in observations]) for key in first}
    if isinstance(first, tuple):
        return tuple(stacked(part) for part in zip(*observations, strict=True))
    return np.stack(observations)


def write_spaces(path: Path, space: Space, recorded: Sequence[Sequence[Any]]) -> Path:
    """As Minari writes them, episodes of two of whose actions the larger one is the bound."""
    minari = importlib.import_module("minari")
    importlib.import_module("minari.dataset.minari_storage")
    path.joinpath("data").mkdir(parents=True)
    storage = minari.dataset.minari_storage.MinariStorage.new(
        path / "data", space, Box(-2.0, 2.0, (2,)), None
    )
    storage.update_metadata({"dataset_id": path.name, "minari_version": minari.__version__})
    buffers = []
    for observations in recorded:
        steps = len(observations) - 1
        ends = np.arange(steps) == steps - 1
        buffers.append(
            minari.data_collector.EpisodeBuffer(
                observations=stacked(observations),
                actions=np.tile(np.array([1.0, 2.0], np.float32), (steps, 1)),
                rewards=np.zeros(steps),
                terminations=np.zeros(steps, bool),
                truncations=ends,
            )
        )
    storage.update_episodes(buffers)
    return path


@pytest.mark.extra("minari")
@pytest.mark.parametrize("space", [NESTED, PAIR], ids=["dict", "tuple"])
def test_parts_become_the_vector_that_gymnasium_makes_of_them(tmp_path: Path, space: Space):
    space.seed(0)
    recorded = [[space.sample() for _ in range(length)] for length in (4, 3)]
    size = int(np.prod(flatten_space(space).shape or 0))
    path = write_spaces(tmp_path / "mine", space, recorded)
    for batch, observations in zip(read_dataset(path, size, 2), recorded, strict=True):
        wanted = np.stack([flat(space, each) for each in observations])
        np.testing.assert_array_equal(batch.obs, wanted[:-1])
        np.testing.assert_array_equal(batch.next_obs, wanted[1:])
    with pytest.raises(UserError, match=r"observations \[4, \d\] .* needs \[4, 9\] and"):
        read_dataset(path, 9, 2)


@pytest.mark.extra("minari")
def test_parts_that_are_no_numbers_are_refused(tmp_path: Path):
    space = Dict({"a": Box(-1.0, 1.0, (3,)), "gear": Discrete(3)})
    path = write_spaces(tmp_path / "mine", space, [[space.sample() for _ in range(3)]])
    with pytest.raises(UserError, match=r"mine, episode 0: gear is Discrete\(3\), and a model"):
        read_dataset(path, 4, 2)


@pytest.mark.extra("minari")
def test_a_task_of_parts_begins_with_episodes_of_its_environment(tmp_path: Path):
    """Recorded in the environment itself; what is exported of the replay can be begun with too."""
    env = gymnasium.make("DatasetGoals-v0")
    recorded = [[env.reset(seed=seed)[0]] for seed in range(4)]
    for observations in recorded:
        observations.extend(env.step(env.action_space.sample())[0] for _ in range(20))
    wanted = np.stack([[flat(NESTED, each) for each in episode] for episode in recorded])
    path = write_spaces(tmp_path / "goals", NESTED, recorded)
    task = f"{{task: gym, id: DatasetGoals-v0, reward: '{__name__}:paid'}}"
    words = [*SETTINGS, f"env.tasks=[{task}]", "protocol={num_tasks: 1, replay_capacity: 200}"]
    for dataset, name in ((path, "first"), (tmp_path / "exported", "second")):
        run = tmp_path / name
        main([*words, f"run_dir={run}", f"replay.datasets=[{dataset}]"])
        stored = held(run, "after_task_1")
        np.testing.assert_array_equal(stored["obs"][:80].unflatten(0, (4, 20)), wanted[:, :-1])
        assert torch.equal(stored["action"][:80], torch.tensor([[0.5, 1.0]]).expand(80, 2))
        if name == "first":
            main(["export", f"run={run}", "source=replay", f"out={tmp_path / 'exported'}"])


@pytest.mark.extra("minari")
def test_where_the_reward_is_learned_it_is_the_datasets(tmp_path: Path):
    """And so is what ended an episode; recorded in the environment itself, without the task."""
    env = gymnasium.make("InvertedPendulum-v5")
    assert isinstance(env.observation_space, Box)
    assert isinstance(env.action_space, Box)
    episodes = []
    for seed in range(8):
        obs, rewards, terminated = [env.reset(seed=seed)[0]], [], False
        env.action_space.seed(seed)
        actions = []
        while not terminated:
            actions.append(env.action_space.sample())
            after, reward, terminated, _, _ = env.step(actions[-1])
            obs.append(after)
            rewards.append(float(reward))
        episodes.append(Episode(np.stack(obs), np.stack(actions), np.array(rewards), True, {}))
    path = tmp_path / "pendulum"
    write_dataset(path, episodes, env.observation_space, env.action_space, None, {})
    task = "{task: gym, id: InvertedPendulum-v5}"
    words = [*SETTINGS, f"env.tasks=[{task}]", "protocol={num_tasks: 1, prediction_horizon: 1}"]
    main([*words, f"run_dir={tmp_path / 'run'}", f"replay.datasets=[{path}]"])
    stored = held(tmp_path / "run", "after_task_1")
    assert stored["obs"].shape[1] == 4 + 2
    begin = 0
    for episode in episodes:
        steps = slice(begin, begin := begin + len(episode))
        assert torch.equal(stored["next_obs"][steps, :4], torch.tensor(episode.obs[1:]).float())
        assert torch.equal(stored["next_obs"][steps, 4], torch.tensor(episode.reward).float())
        ended = np.arange(1, len(episode) + 1) == len(episode)
        assert torch.equal(stored["next_obs"][steps, 5], torch.tensor(ended).float())
        # Nothing is paid before the first step.
        assert torch.equal(stored["obs"][steps][1:], stored["next_obs"][steps][:-1])
        assert torch.equal(stored["obs"][steps][0, 4:], torch.zeros(2))


@pytest.mark.extra("minari")
def test_no_dataset_is_one_message(tmp_path: Path):
    with pytest.raises(UserError, match="none is neither a folder here nor a dataset in Minari's"):
        read_dataset(tmp_path / "none", 10, 2)
    with pytest.raises(UserError, match="cannot be read as a dataset"):
        read_dataset(tmp_path, 10, 2)


@pytest.mark.extra("minari")
def test_a_task_begins_with_a_dataset(run: Path, tmp_path: Path, capsys):
    """Task 1 begins with as many transitions as it has random steps and more, task 2 with fewer."""
    many, few = tmp_path / "many-v0", tmp_path / "few-v0"
    main(["export", f"run={run}", "task=1", "source=replay", f"out={many}"])
    main(["export", f"run={run}", "task=2", "episodes=1", f"out={few}"])
    assert "2 episodes of push 500 | 500 kg/m³, 82 steps" in capsys.readouterr().out
    given = tmp_path / "given"
    main([*SETTINGS, f"run_dir={given}", f"replay.datasets=[{many},{few}]"])
    first, second = (held(given, f"after_task_{task}") for task in (1, 2))
    old = held(run, "after_task_1")
    for name in ("obs", "action", "next_obs"):
        assert torch.equal(first[name][:82], old[name])
        assert len(first[name]) == 82 + 12
    assert first["begins"].nonzero()[:, 0].tolist() == [0, 60, 82]
    assert second["begins"].nonzero()[:, 0].tolist() == [0, 60]
    assert len(second["obs"]) == 60 + 10 + 12
    records = [json.loads(line) for line in (given / "metrics.jsonl").read_text().splitlines()]
    updates = [r["env_steps"] for r in records if r["kind"] == "update"]
    # Trained at once; then at the ages 88 (six steps on) and 94, of planned steps 18 and 24.
    assert updates[0] == 0
    assert 12 + 10 in updates, "task 2: after what was left of the random steps"
    assert_same_scales(given, first)


@pytest.mark.extra("minari")
def test_a_dataset_of_another_task_is_warned_of(run: Path, tmp_path: Path):
    """Its observations fit, and nothing else said that its boxes are of other densities."""
    dataset = tmp_path / "second-v0"
    main(["export", f"run={run}", "task=2", "episodes=1", f"out={dataset}"])
    same = [*SETTINGS, f"run_dir={tmp_path / 'same'}", f"replay.datasets=[null,{dataset}]"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main(same)
    other = [*SETTINGS, f"run_dir={tmp_path / 'other'}", f"replay.datasets=[{dataset}]"]
    wanted = re.escape(
        f"task 1 begins with {dataset}, which was exported of densities=[100, 500] (push) and "
        "not of densities=[500, 500]"
    )
    with pytest.warns(UserWarning, match=wanted):
        main(other)
    slide = [*SETTINGS, "env=slide", f"run_dir={tmp_path / 'slide'}", other[-1]]
    wanted = r"exported of task=push \(push\) and not of task=slide"
    with pytest.warns(UserWarning, match=wanted), pytest.raises(SystemExit):  # of another size
        main(slide)


def assert_same_scales(run: Path, stored: dict[str, Tensor]) -> None:
    """The inputs' mean is that of all transitions that there were as the random steps ended."""
    normaliser = open_run(run, "cpu", "after_task_1").model.input_normaliser
    inputs = torch.cat([stored["obs"], stored["action"]], 1)[:82]
    torch.testing.assert_close(normaliser.mean, inputs.mean(0))


@pytest.mark.extra("minari")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay.datasets=[none]"], "none is neither a folder here nor"),
        (
            ["replay.datasets=[null, null, none]"],
            "names 3, but this run learns 2 tasks, of 5 in push (protocol.num_tasks). Give",
        ),
        (["replay.datasets=[none]", "task_id=inferred"], "need task_id=given"),
    ],
)
def test_wrong_datasets_leave_no_run(tmp_path: Path, capsys, words, message):
    with pytest.raises(SystemExit):
        main([*SETTINGS, f"run_dir={tmp_path / 'new'}", *words])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_ended_run_is_not_said_to_go_on(run: Path, capsys):
    with pytest.raises(SystemExit):
        main([*SETTINGS, f"run_dir={run}"])
    said = capsys.readouterr().err
    assert "is left as it is. Name another run_dir." in said
    assert "resume" not in said


def test_a_place_of_an_export_is_seen_to_at_once(run: Path, tmp_path: Path, capsys, monkeypatch):
    words = ["export", f"run={run}"]
    with pytest.raises(SystemExit):
        main([*words, f"out={tmp_path / 'new/x'}", "task=3"])
    assert "has the tasks 1 to 2" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing is made for what is refused"
    monkeypatch.setattr("hypercrl.commands.export.open_run", None)  # it does not come to that
    (tmp_path / "file").touch()
    for place in (tmp_path / "file/x", Path("/proc/nosuch/x"), Path("/proc/x")):
        for form in ("minari", "torch_export"):
            with pytest.raises(SystemExit, match="2"):
                main([*words, f"out={place}", f"format={form}"])
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith(f"hypercrl: cannot write to {place}: ")


def test_export_says_what_is_wrong(run: Path, tmp_path: Path, capsys):
    for words, message in (
        ([f"out={tmp_path / 'x'}"], "export needs run="),
        ([f"run={run}"], "export needs out="),
        ([f"run={run}", f"out={tmp_path}"], "exists already"),
        ([f"run={run}", f"out={tmp_path / 'x'}", "task=3"], "has the tasks 1 to 2"),
        ([f"run={run}", f"out={tmp_path / 'x'}", "format=minary"], "format"),
        (
            [f"run={run}", f"out={tmp_path / 'x'}", "source=replay", "checkpoint=after_task_2"],
            "checkpoint has no effect with source=replay: give source=rollout beside it",
        ),
    ):
        with pytest.raises(SystemExit):
            main(["export", *words])
        assert message in capsys.readouterr().err
