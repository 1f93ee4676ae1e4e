"""A run's configuration, as it was given, comes back from its folder: also what one option has
and its group does not. Its records stand once and in order, wherever it was killed."""

import json
import time
from dataclasses import dataclass
from itertools import zip_longest

import gymnasium
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from killed_runs import assert_same, learned, outcome
from linear_world import LinearWorld
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import FEW_STEPS

from hypercrl.base.errors import UserError
from hypercrl.base.paths import configs_dir
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.registered import register
from hypercrl.config.schema import TrainConfig
from hypercrl.methods import METHODS
from hypercrl.runs.metrics_log import MetricsLog
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.experiment import build
from hypercrl_envs.gym_task import GymTask

OPTIONS = [
    [f"{group}={path.stem}" for path in sorted((configs_dir() / group).glob("*.yaml"))]
    for group in ("memory", "method", "planner")
]
CHOICES = [[option for option in options if option] for options in zip_longest(*OPTIONS)]
"""Every option of every group in one of them."""


@pytest.mark.parametrize("choices", CHOICES, ids=" ".join)
def test_the_configuration_comes_back(choices, tmp_path):
    register()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", choices)
    with RunFolder.create(tmp_path / "run", config) as folder:
        assert folder.config(TrainConfig) == OmegaConf.to_object(config)


def log_episodes(log, steps):
    for step in steps:
        log.write("episode", step, 1, **{"return": 0.5 * step, "success": step > 3})
    return log.flush()


def shown(folder):
    """(step, value) of the returns as TensorBoard shows them."""
    events = EventAccumulator(str(folder.path / "tensorboard"), {"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars("episode/return")]


@pytest.mark.parametrize("kept", [0, 2, 4])
@pytest.mark.parametrize("clock", [0, 3600, -3600])
def test_a_killed_run_that_goes_on_shows_every_step_once(tmp_path, monkeypatch, kept, clock):
    """Killed with some steps beyond the checkpoint; the clock may have been set meanwhile."""
    folder = RunFolder(tmp_path)
    killed = MetricsLog(folder)
    position = log_episodes(killed, range(1, kept + 1))
    log_episodes(killed, range(kept + 1, 7))  # and no close()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + clock)
    resumed = MetricsLog(folder, position)
    log_episodes(resumed, range(kept + 1, 9))
    resumed.close()
    assert shown(folder) == [(step, 0.5 * step) for step in range(1, 9)]
    lines = folder.metrics_path.read_text().splitlines()
    assert [json.loads(line)["env_steps"] for line in lines] == list(range(1, 9))


@pytest.mark.parametrize("missing", ["null", "NaN", "Infinity"])  # the last two: of old
def test_what_is_no_number_is_left_out_of_a_resumed_runs_tensorboard(tmp_path, missing):
    folder = RunFolder(tmp_path)
    record = '{{"kind": "episode", "env_steps": {}, "task": 1, "return": {}}}\n'
    folder.metrics_path.write_text(record.format(3, missing) + record.format(4, 2.0))
    MetricsLog(folder, folder.metrics_path.stat().st_size).close()
    assert shown(folder) == [(4, 2.0)]


@pytest.mark.parametrize("text", [None, "", '{"kind": "episode"', "x" * 500, "x\n" * 500])
def test_records_that_the_checkpoint_does_not_know_are_left_alone(tmp_path, text):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder)
    position = log_episodes(log, range(1, 5))
    log.close()
    if text is None:
        folder.metrics_path.unlink()
    else:
        folder.metrics_path.write_text(text)
    with pytest.raises(UserError, match="does not belong to the latest checkpoint"):
        MetricsLog(folder, position)
    assert folder.metrics_path.read_text() == (text or "")
    assert shown(folder) == [(step, 0.5 * step) for step in range(1, 5)]


@pytest.mark.parametrize("damaged", ["3", "null", "{}", '{"kind": "episode", "env_steps": 2}'])
def test_a_line_that_is_no_record_is_left_alone(tmp_path, damaged):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder)
    position = log_episodes(log, range(1, 5))
    log.close()
    lines = folder.metrics_path.read_text().splitlines()
    lines[1] = damaged.ljust(len(lines[1]))
    folder.metrics_path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="does not belong to the latest checkpoint"):
        MetricsLog(folder, position)


@pytest.mark.parametrize("linked", [True, False])
def test_the_latest_checkpoint_is_one_by_another_name(tmp_path, monkeypatch, linked):
    def refuse(*_):
        raise OSError("no hard links here")

    if not linked:
        monkeypatch.setattr("os.link", refuse)
    folder = RunFolder(tmp_path)
    folder.save_checkpoint("latest", {"a": 1})
    folder.save_checkpoint("after_task_1", {"a": 2})
    folder.make_latest("after_task_1", keep=True)
    assert folder.load_checkpoint("latest") == {"a": 2}
    assert folder.load_checkpoint("previous") == {"a": 1}
    # What is written later goes beside the one of the other name, not into it.
    folder.save_checkpoint("latest", {"a": 3})
    assert folder.load_checkpoint("after_task_1") == {"a": 2}
    assert folder.checkpoints() == ["after_task_1", "latest", "previous"]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_a_smoke_run_is_small_on_disk():
    """Its checkpoints are those of networks as small as its preset says."""
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs_dir()), version_base="1.3"):
        config = compose("train", ["preset=smoke", "device=cpu"])
    parameters = build(OmegaConf.to_object(config)).method.parameters()
    # Weights and two moments, in float32.
    assert 3 * 4 * sum(p.numel() for p in parameters) < 2**21


def test_settings_that_change_are_composed_as_they_are_now(monkeypatch):
    """They are registered once only where they stay what they were."""

    @dataclass
    class Other(METHODS["finetune"][1]):
        extra: int = 3

    composed("train", ["method=finetune"])
    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "finetune", (METHODS["finetune"][0], Other))
        assert composed("train", ["method=finetune"]).method.extra == 3
    assert "extra" not in composed("train", ["method=finetune"]).method


def test_what_is_advised_is_not_refused(tmp_path):
    folder = RunFolder(tmp_path)
    for name in ("latest", "previous"):
        folder.checkpoint_path(name).parent.mkdir(exist_ok=True)
        folder.checkpoint_path(name).touch()
    assert folder.advice("latest").endswith(f"hypercrl train resume={tmp_path} checkpoint=previous")
    folder.result_path.write_text("{}")  # it has ended, and is only played
    assert folder.advice("latest") == (
        "There are also previous; take one of them with: checkpoint=previous"
    )


def test_only_a_run_is_said_to_go_on(tmp_path):
    (tmp_path / "notes").touch()
    with pytest.raises(UserError) as refused, RunFolder.create(tmp_path, OmegaConf.create()):
        pass
    assert str(refused.value).endswith("Name another run_dir.")
    (tmp_path / "config.yaml").touch()
    with (
        pytest.raises(UserError, match="continue that run"),
        RunFolder.create(tmp_path, OmegaConf.create()),
    ):
        pass


class Shaky(LinearWorld):
    """It draws in its steps. What it is paid is a number once it is mended."""

    mended = False

    def step(self, action):
        obs, paid, *rest = super().step(action + self.np_random.normal(size=2))
        return obs, paid if self.mended else np.full(1, paid), *rest


gymnasium.register("Shaky-v0", Shaky, max_episode_steps=5)
SHAKY = (
    *("train", *FEW_STEPS, "method=finetune", "env.tasks=[{task: gym, id: Shaky-v0}]"),
    "protocol.prediction_horizon=3",
)


def test_a_wrong_first_step_leaves_no_run_and_the_same_command_begins_one_once_it_is_mended(
    tmp_path, capsys, monkeypatch
):
    command = (*SHAKY, f"run_dir={tmp_path / 'run'}")
    with pytest.raises(SystemExit, match="2"):
        main(command)
    said = "hypercrl: Shaky-v0, step 1 of an episode: reward is no number, but array"
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(Shaky, "mended", True)
    main(command)
    assert RunFolder(tmp_path / "run").ended


def test_that_an_environment_was_tried_changes_nothing_in_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Shaky, "mended", True)
    for name in ("tried", "untried"):
        main((*SHAKY, f"run_dir={tmp_path / name}"))
        monkeypatch.setattr(GymTask, "try_out", lambda _: None)
    assert_same(learned(tmp_path / "tried"), learned(tmp_path / "untried"))
    assert outcome(tmp_path / "tried") == outcome(tmp_path / "untried")
