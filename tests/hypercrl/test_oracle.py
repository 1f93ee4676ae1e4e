"""The upper bound: plans through the simulator, from the command line."""

import json

import numpy as np
import pytest

from hypercrl.cli import main

BASE = ("preset=smoke", "device=cpu", "planner.dynamics=simulator")


def test_measured_without_training_and_played(tmp_path, capsys):
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


@pytest.mark.parametrize("env", ["gymnasium", "push_engines"])
def test_tasks_without_such_a_simulator_are_refused(env, tmp_path, capsys):
    if env == "push_engines":
        pytest.importorskip("pybullet")
    path = tmp_path / "run"
    with pytest.raises(SystemExit) as exit_:
        main(["train", *BASE, f"env={env}", f"run_dir={path}"])
    assert exit_.value.code == 2
    assert "cannot be rolled out by its simulator" in capsys.readouterr().err
    assert not path.exists()
