"""Several robots that act at once: as many steps, the same wherever they are simulated."""

import json

import numpy as np
import pytest
import torch
from killed_runs import assert_same, learned, outcome, saved_and_killed
from tiny_runs import FEW_STEPS

from hypercrl.base import interrupts
from hypercrl.cli import main
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.runs.run_folder import RunFolder
from hypercrl.training.actor import Actor
from hypercrl_envs.blocks import BlockTask

pytestmark = pytest.mark.usefixtures("short_episodes_throughout")
SMALL = (*FEW_STEPS, "method=hnet", "method.hidden=[8]", "protocol.num_tasks=2", "seed=2")
FOUR = (
    "protocol.robots=4",
    "protocol.random_steps=16",
    "protocol.planned_steps=24",
    "protocol.update_every=10",
    "protocol.eval_every=10",
)
"""No round of robots ends where an update is due."""
MEMORY = ("memory=gru", "memory.width=8", "context.burn_in=2", "context.horizon=2")


def train(path, *words):
    main(["train", *SMALL, *FOUR, *words, f"run_dir={path}"])
    return path


def records(path, kind):
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture(scope="module")
def four(tmp_path_factory, short_episodes_throughout):
    return train(tmp_path_factory.mktemp("runs") / "four")


def test_as_many_steps_and_updates_as_one_robot_has(four, tmp_path):
    result = json.loads((four / "result.json").read_text())
    assert result["env_steps"] == 2 * 40
    assert result["plans"] == 2 * 24 / 4
    one = tmp_path / "one"
    main(["train", *SMALL, *FOUR, "protocol.robots=1", f"run_dir={one}"])
    alone = json.loads((one / "result.json").read_text())
    assert result["updates"] == alone["updates"] == 2 * 3 * 6
    assert alone["env_steps"] == result["env_steps"]
    # After 12, 20 and 24 planned steps where one robot has it after 10 and 20.
    assert [r["env_steps"] for r in records(four, "update")] == [16, 28, 36, 56, 68, 76]
    assert [r["env_steps"] for r in records(one, "update")] == [16, 26, 36, 56, 66, 76]


def test_simulators_of_other_processes_change_nothing(four, tmp_path, forked_simulators):
    spread = train(tmp_path / "spread", "simulators=3")
    assert outcome(spread) == outcome(four)
    assert_same(learned(spread), learned(four))


def test_every_robot_has_a_start_and_noise_of_its_own(tmp_path, monkeypatch):
    seen, act = [], Actor.act

    def watched(self, planned):
        before = self.obs.clone()
        act(self, planned)
        seen.append((before, self.learner.replay.action[: len(before)].clone()))

    monkeypatch.setattr(Actor, "act", watched)
    train(tmp_path / "run", "protocol.num_tasks=1")
    starts, actions = seen[0]
    assert starts.shape[0] == 4
    assert len(torch.unique(starts, dim=0)) == len(torch.unique(actions, dim=0)) == 4


def test_what_is_learned_from_is_what_was_executed(tmp_path, monkeypatch):
    """Noise leads beyond the bounds; the task's simulator never sees that, nor does the model."""
    executed, pairs, act, advance = [], [], Actor.act, BlockTask._advance

    def watched_advance(self, action):
        executed.append(torch.tensor(action))
        advance(self, action)

    def watched_act(self, planned):
        executed.clear()
        act(self, planned)
        pairs.append((torch.stack(executed), self.learner.replay.latest(4).action))

    monkeypatch.setattr(BlockTask, "_advance", watched_advance)
    monkeypatch.setattr(Actor, "act", watched_act)
    noise = ("exploration.random_std=2", "exploration.planned_std=2")
    train(tmp_path / "run", "protocol.num_tasks=1", *noise)
    assert len(pairs) == 10
    for moved, stored in pairs:
        assert torch.equal(moved, stored)
        assert (stored.abs() == 1).any()


@pytest.mark.parametrize(
    "words",
    [pytest.param((), marks=pytest.mark.slow, id="told"), pytest.param(MEMORY, id="memory")],
)
def test_saved_at_every_pause_and_resumed_anywhere_it_ends_the_same(words, tmp_path, monkeypatch):
    """Random steps, planned ones amid an episode, training steps and evaluations included."""
    straight = train(tmp_path / "straight", *words)
    run, command = tmp_path / "run", (*SMALL, *FOUR, *words)
    saved = saved_and_killed(run, command, (5, 30, 73, 90, 140), monkeypatch)
    assert len(saved) > 140
    assert outcome(run) == outcome(straight)
    assert_same(learned(run), learned(straight))


def test_a_checkpoint_holds_every_robot(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "SAVE_SECONDS", 0.0)
    trees, save = [], RunFolder.save_checkpoint

    def watched(self, name, tree):
        save(self, name, tree)
        if "actor" in tree:
            trees.append(load_checkpoint(self.checkpoint_path(name))["actor"])

    monkeypatch.setattr(RunFolder, "save_checkpoint", watched)
    train(tmp_path / "run", "protocol.num_tasks=1")
    last = trees[-1]
    assert len(last["robots"]) == len(last["returns"]) == len(last["obs"]) == 4
    physics = np.stack([robot["physics"] for robot in last["robots"]])
    assert len(np.unique(physics, axis=0)) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("protocol.robots=3",), "random_steps must be a multiple of 3, not 16; give 18"),
        (("protocol.robots=16",), "planned_steps must be a multiple of 16, not 24; give 32"),
        (("protocol.robots=0",), "protocol.robots"),
        (("protocol.replay_capacity=3",), "protocol.replay_capacity"),
        (("task_id=inferred",), "protocol.robots > 1 needs task_id=given"),
        (("simulators=0",), "simulators"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        train(tmp_path / "run", *words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
