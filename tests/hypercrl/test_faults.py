"""The whole program in environments that fail, with models that diverge, and code of one's own."""

import json
import os
import shlex
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.utils._pytree import tree_leaves

from hypercrl.cli import main
from hypercrl.runs.checkpoint import load_checkpoint

SMALL = (
    "preset=smoke",
    "device=cpu",
    "method=single",
    "env=gymnasium",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "protocol.checkpoint_every=20",
)


class Faulty(gymnasium.Env):
    """A point that fails in its hundredth step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, fault):
        self.fault = fault
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.normal(size=2).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action):
        self.steps += 1
        self.x += np.float32(0.1) * action
        obs, reward = self.x.copy(), -float(np.abs(self.x).sum())
        if self.steps == 100:
            if self.fault == "observation":
                obs[1] = np.nan
            if self.fault == "reward":
                reward = float("nan")
            if self.fault == "exit":
                sys.exit(0)
        return obs, reward, False, False, {}


gymnasium.register("TestFails-v0", Faulty, max_episode_steps=30)


def failure(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(["train", *words])
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    return " ".join(printed.split())


class Waiting(Faulty):
    """It fails in the so-manieth step of every episode, until it is mended."""

    fails_at = 3

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return super().reset(seed=seed)

    def step(self, action):
        if self.steps + 1 == Waiting.fails_at:
            raise KeyError("friction")
        return super().step(action)


gymnasium.register("TestWaits-v0", Waiting, max_episode_steps=30, kwargs={"fault": ""})


@pytest.mark.parametrize("step", [3, 20])  # two are tried before there is a run
def test_a_fault_that_was_mended_is_gone_on_from_as_the_message_says(
    step, tmp_path, capsys, monkeypatch
):
    run, straight = tmp_path / "a run", tmp_path / "straight"
    words = (*SMALL, "env.tasks=[{task: gym, id: TestWaits-v0}]")
    monkeypatch.setattr(Waiting, "fails_at", step)
    printed = failure(capsys, *words, f"run_dir={run}")
    assert f"TestWaits-v0, step {step} of an episode raised KeyError: 'friction'" in printed
    told, _, command = printed.rpartition(" Mend it, and go on from there with: hypercrl ")
    assert told.endswith(f"Last good checkpoint: {run}/checkpoints/latest.safetensors.")
    monkeypatch.setattr(Waiting, "fails_at", 0)
    main(shlex.split(command))
    main(["train", *words, f"run_dir={straight}"])
    results = [json.loads((path / "result.json").read_text()) for path in (run, straight)]
    assert results[0]["scores"] == results[1]["scores"]
    assert results[0]["env_steps"] == results[1]["env_steps"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("observation", "step 10 of an episode: observation[1] is nan"),
        ("reward", "step 10 of an episode: reward is nan"),
        ("exit", "step 10 of an episode called sys.exit(0)"),
    ],
)
def test_a_fault_ends_a_run_before_it_is_learned_from(fault, says, tmp_path, capsys):
    task = f"{{task: gym, id: TestFails-v0, options: {{fault: {fault}}}}}"
    run = tmp_path / "run"
    printed = failure(capsys, *SMALL, f"env.tasks=[{task}]", f"run_dir={run}")
    latest = run / "checkpoints" / "latest.safetensors"
    assert f"TestFails-v0, {says}" in printed
    assert "after 99 environment steps, in training of task 1" in printed
    assert f"Last good checkpoint: {latest}." in printed
    assert not (run / "result.json").exists()
    saved = {**load_checkpoint(latest), "tallies": None}  # where NaN is what was not measured
    tensors = [leaf for leaf in tree_leaves(saved) if isinstance(leaf, torch.Tensor)]
    assert tensors
    assert not any(tensor.isnan().any() for tensor in tensors if tensor.is_floating_point())
    # The environment counts anew, and fails no more.
    main(["train", f"resume={run}"])
    assert (run / "result.json").exists()


def test_a_model_that_diverges_to_finite_numbers_is_said(tmp_path, capsys):
    fast = ("method.learning_rate=1e6", "method.clip_norm=1e30")
    run = tmp_path / "run"
    printed = failure(capsys, *SMALL, *fast, f"run_dir={run}")
    latest = run / "checkpoints" / "latest.safetensors"
    assert "The model diverged (loss " in printed
    assert f"Last good checkpoint: {latest}. Lower method.learning_rate" in printed
    assert load_checkpoint(latest)["learner"]["first_loss"] is None  # from before


def test_the_current_folder_is_importable(tmp_path, monkeypatch, capsys):
    """In the command as in the cells of a grid, which are processes of their own."""
    (tmp_path / "own_rewards.py").write_text(
        "def paid(obs, action, next_obs):\n    return -next_obs.square().sum(-1)\n"
    )
    task = '{task: gym, id: Reacher-v5, reward: "own_rewards:paid"}'
    words = [*SMALL, "seed=0", f"env.tasks=[{task}]", "protocol.planned_steps=30"]
    # As the installed command: a script elsewhere, that does not look into the current folder.
    program = [sys.executable, "-P", "-c", "from hypercrl.cli import main; main()"]
    run = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*program, "train", *words, f"run_dir={run}"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    for command in (["play", f"run={run}"], ["bench", *words, "out=grid"]):
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "path", list(sys.path))
            main(command)
        sys.modules.pop("own_rewards", None)
    monkeypatch.chdir(run)
    assert str(tmp_path) not in sys.path
    with pytest.raises(SystemExit) as elsewhere:
        main(["play", f"run={run}"])
    assert elsewhere.value.code == 2
    assert "or call the command from the folder in which it lies" in capsys.readouterr().err
    assert (tmp_path / "grid" / "cells").is_dir()


def test_a_rewards_mistake_is_found_before_a_run_is_begun(tmp_path, capsys):
    task = f'{{task: gym, id: Reacher-v5, reward: "{__name__}:unreduced"}}'
    printed = failure(capsys, *SMALL, f"env.tasks=[{task}]", f"run_dir={tmp_path / 'run'}")
    assert "unreduced returned shape (8, 10)" in printed
    assert not (tmp_path / "run").exists()


def unreduced(obs, action, next_obs):
    return -torch.square(next_obs)
