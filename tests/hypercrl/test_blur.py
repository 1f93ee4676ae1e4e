"""A boundary over which episodes of the old task give way to the new one's."""

import gymnasium
import pytest
import torch
from killed_runs import assert_same, learned, outcome, saved_and_killed
from linear_world import LinearWorld
from torch.nn import functional as F

from hypercrl.base.errors import UserError
from hypercrl.cli import main
from hypercrl.replay.transitions import Batch
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.training import trainer
from hypercrl.training.open_run import open_run
from hypercrl.training.recorded import from_replay

EPISODE = 5


# Every transition, s ± a, says which of the two it is of.
gymnasium.register("BlurredWorlds-v0", LinearWorld, max_episode_steps=EPISODE)
TASKS = ", ".join(
    f"{{task: gym, id: BlurredWorlds-v0, options: {{sign: {sign}}}}}" for sign in (1, -1)
)
WORDS = (
    "preset=smoke",
    "device=cpu",
    "method=single",
    f"env.tasks=[{TASKS}]",
    "dynamics.hidden=[8]",
    "planner.samples=8",
    "planner.elites=2",
    "planner.horizon=3",
    "protocol.prediction_horizon=3",
    "protocol.updates=2",
    "protocol.final_episodes=1",
)


def test_the_old_task_fades_out(tmp_path):
    """Of 200 episodes of the second task the first half are of the first one with a probability
    that falls from one to none."""
    robots = 2
    words = (
        f"protocol.robots={robots}",
        "protocol.random_steps=1000",
        "protocol.planned_steps=0",
        "protocol.replay_capacity=1000",
        "protocol.blur=500",
    )
    main(["train", *WORDS, *words, f"run_dir={tmp_path / 'r'}"])
    tree = load_checkpoint(tmp_path / "r/checkpoints/latest.safetensors")
    replay = tree["learner"]["replay"]
    moved = (replay["next_obs"] - replay["obs"])[:, :2].double()
    signs = (moved * replay["action"]).sum(1).sign().reshape(-1, EPISODE, robots).transpose(1, 2)
    assert (signs == signs[..., :1]).all(), "an episode is of one task"
    old = (signs[..., 0] > 0).flatten().double()
    assert len(old) == 200
    assert old[0] == 1, "it begins as the task before ended"
    assert not old[100:].any()
    early, late = old[:50].mean(), old[50:100].mean()
    for share, wanted in ((early, 0.75), (late, 0.25)):
        assert abs(share - wanted) < 3 * (wanted * (1 - wanted) / 50) ** 0.5
    begun = replay["obs"][:, :2].reshape(-1, EPISODE, robots, 2)[:, 0]
    assert len(begun.flatten(0, 1).unique(dim=0)) == 200, "of starts that are drawn anew"

    # Which is no data of the second task, as what is exported would claim.
    experiment = open_run(tmp_path / "r", "cpu")
    assert sum(map(len, from_replay(tmp_path / "r", experiment, 0, experiment.robot(0)))) == 1000
    with pytest.raises(UserError, match=r"protocol.blur=500 .* Use source=rollout"):
        from_replay(tmp_path / "r", experiment, 1, experiment.robot(1))


def test_a_boundary_is_sharp_unless_said_otherwise(tmp_path):
    words = ("protocol.random_steps=50", "protocol.planned_steps=0")
    main(["train", *WORDS, *words, f"run_dir={tmp_path / 'r'}"])
    replay = load_checkpoint(tmp_path / "r/checkpoints/latest.safetensors")["learner"]["replay"]
    moved = (replay["next_obs"] - replay["obs"])[:, :2]
    assert ((moved * replay["action"]).sum(1) < 0).all()


def test_recorded_steps_are_steps_of_the_task_that_fades_in(tmp_path, monkeypatch):
    draws = torch.Generator().manual_seed(0)
    action, obs = 2 * torch.rand(12, 2, generator=draws) - 1, torch.zeros(12, 4)
    episode = Batch(obs, action, obs - F.pad(action, (0, 2)))
    monkeypatch.setattr(trainer, "recorded_transitions", lambda *_: {1: [episode]})
    words = ("protocol.random_steps=12", "protocol.planned_steps=5", "protocol.blur=10")
    main(["train", *WORDS, *words, "protocol.update_every=5", f"run_dir={tmp_path / 'r'}"])
    replay = load_checkpoint(tmp_path / "r/checkpoints/latest.safetensors")["learner"]["replay"]
    assert replay["begins"].nonzero()[:, 0].tolist() == [0, 12]
    moved = (replay["next_obs"] - replay["obs"])[12:, :2]
    assert len(moved) == 5
    assert ((moved * replay["action"][12:]).sum(1) < 0).all()


def test_saved_and_killed_within_a_blurred_boundary_it_ends_the_same(tmp_path, monkeypatch):
    words = (
        *WORDS,
        "protocol.random_steps=10",
        "protocol.planned_steps=10",
        "protocol.update_every=5",
        "protocol.blur=15",
    )
    main(["train", *words, f"run_dir={tmp_path / 'straight'}"])
    run = tmp_path / "run"
    within = saved_and_killed(
        run, words, (6, 25), monkeypatch, lambda tree: tree["position"]["task"] == 1
    )
    assert len(within) > 30
    assert outcome(run) == outcome(tmp_path / "straight")
    assert_same(learned(run), learned(tmp_path / "straight"))
