"""The upper bound: plans through the simulator, from the command line."""

import json
from typing import cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hypercrl.agent.agent import oracle_agent
from hypercrl.agent.exploration import ExplorationConfig
from hypercrl.cli import main
from hypercrl.config.compose import composed
from hypercrl.config.schema import TrainConfig
from hypercrl.planning import CEMConfig, make_planner
from hypercrl.training.episodes import Episodes
from hypercrl.training.evaluation import QUANTITIES, Evaluator
from hypercrl.training.experiment import build
from hypercrl_envs import LocalFleet, TaskSequence
from hypercrl_envs.cheetah import CONTROL_PERIOD, CheetahTask
from hypercrl_envs.task_functions import TAKEN


@pytest.fixture
def fifty_steps(monkeypatch):
    """A quarter of an episode, in which to run forwards pays as much as the limits want of all."""
    monkeypatch.setattr(CheetahTask, "max_episode_steps", 50)


BASE = ("preset=smoke", "device=cpu", "planner.dynamics=simulator")


def test_measured_without_training_and_played(tmp_path, capsys, with_report, fifty_steps):
    path = tmp_path / "oracle"
    settings = ("planner={samples: 12, elites: 3, horizon: 8}", "protocol.final_episodes=1")
    main(["train", *BASE, "env=cheetah", *settings, f"run_dir={path}"])
    result = json.loads((path / "result.json").read_text())
    assert result["method"] == "simulator"
    assert np.shape(result["scores"]) == (3, 2)
    assert result["scores"][0] == result["scores"][2]
    assert result["prediction_error"] == [[0.0, 0.0]] * 3
    assert result["env_steps"] == result["updates"] == result["forgetting"] == 0
    # Untrained models run backwards; so small a search with true dynamics runs forwards.
    assert min(result["scores"][2]) > 20
    assert (path / "report/index.html").exists()
    assert "simulator" in capsys.readouterr().out
    main(["play", f"run={path}", "episodes=1"])
    assert "return" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["play", f"run={path}", "checkpoint=after_task_1"])
    assert "has no checkpoint 'after_task_1'" in capsys.readouterr().err


def test_episodes_need_not_be_long_enough_for_a_prediction_error():
    """What would lengthen them, or shorten it, has no effect on the oracle."""
    config = composed("train", [*BASE, "env=cheetah", "planner.samples=2", "planner.elites=1"])
    config.protocol.prediction_horizon = 10_000
    assert build(cast(TrainConfig, OmegaConf.to_object(config))).plans_with_simulator


@pytest.mark.usefixtures("fifty_steps")
def test_a_perfect_model_of_another_task_runs_with_another_body_but_not_with_other_motors():
    tasks = [
        {"task": "cheetah"},
        {"task": "cheetah", "body": "torso"},
        {"task": "cheetah", "reversed_joints": ["bthigh", "fthigh"]},
    ]
    config = CEMConfig(samples=12, elites=3, horizon=8, iterations=2)
    planner = make_planner(config, -torch.ones(6), torch.ones(6))
    evaluator = Evaluator(
        LocalFleet(TaskSequence(tasks, "three")), planner, 0, ExplorationConfig(), 10, 1, 0
    )
    other_body, other_motors = (evaluator.evaluate_oracle(j, 1, imagined=0) for j in (1, 2))
    evaluator.close()
    assert np.isnan(other_body.prediction_error)
    assert other_body.episode_return > 20
    assert other_motors.episode_return < -20


def test_pace_is_the_way_of_the_second_half_of_an_episode_by_its_time(monkeypatch):
    monkeypatch.setattr(CheetahTask, "max_episode_steps", 11)
    tasks = [{"task": "cheetah"}, {"task": "cheetah", "told": True}]
    fleet = LocalFleet(TaskSequence(tasks, "two", pad=True))
    robots = fleet.make(0, 2)  # padded
    planner = make_planner(
        CEMConfig(samples=4, elites=2, horizon=2, iterations=1), -torch.ones(6), torch.ones(6)
    )
    own = [fleet.tasks[robot] for robot in robots]
    agent = oracle_agent(planner, fleet.sequence, 0, own)
    episodes = Episodes(agent, fleet, robots, [0, 1], fleet.task(0).figures)
    ways = []
    episodes.plan()
    while episodes.going:
        ways.append([task.get_state()["physics"][1] for task in own])
        episodes.move()
        episodes.plan()
    ways.append([task.get_state()["physics"][1] for task in own])
    fleet.close()
    assert len(ways) == 12
    paces = (np.array(ways[-1]) - ways[5]) / (6 * CONTROL_PERIOD)
    assert abs(paces.mean()) > 0.01
    assert {*QUANTITIES, "return"} - {"episode_return"} <= TAKEN
    assert episodes.figures() == {"pace": pytest.approx(paces.mean(), rel=1e-4)}


@pytest.mark.parametrize(
    "env", ["gymnasium", pytest.param("push_engines", marks=pytest.mark.bullet)]
)
def test_tasks_without_such_a_simulator_are_refused(env, tmp_path, capsys):
    path = tmp_path / "run"
    with pytest.raises(SystemExit) as exit_:
        main(["train", *BASE, f"env={env}", f"run_dir={path}"])
    assert exit_.value.code == 2
    assert "cannot be rolled out by its simulator" in capsys.readouterr().err
    assert not path.exists()
