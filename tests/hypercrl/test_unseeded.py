"""Environments that their seed does not determine: a resumed run invents no transition."""

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from tiny_runs import FEW_STEPS

from hypercrl.cli import main
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl_envs import TaskFault, make_task


class Drifting(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that moves by its action, 0.1 in each direction at most, from anywhere."""

    observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-0.1, 0.1, (2,), np.float64)

    def __init__(self, shrinks: bool = False) -> None:
        self.shrinks = shrinks

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        super().reset(seed=seed)
        self.x = np.random.default_rng().uniform(-5, 5, 2)
        return self.x.copy(), {}

    def step(self, action: np.ndarray):
        self.x = self.x + action
        if self.shrinks:
            self.action_space = gymnasium.spaces.Box(-0.05, 0.05, (2,), np.float64)
        return self.x.copy(), 0.0, False, False, {}


gymnasium.register("Drifting-v0", Drifting, max_episode_steps=20)


@pytest.mark.filterwarnings("ignore:an episode of")
def test_a_resumed_run_begins_another_episode(tmp_path: Path, monkeypatch):
    run = tmp_path / "run"
    tasks = "env.tasks=[{task: gym, id: Drifting-v0}]"
    words = [*FEW_STEPS, tasks, "protocol.checkpoint_every=5", "protocol.eval_every=1000"]
    with monkeypatch.context() as patched:
        steps = iter(range(100))

        def fails(self: Drifting, action: np.ndarray):
            if next(steps) == 13:  # of which six are a trial
                raise OSError("unplugged")
            return moved(self, action)

        moved = Drifting.step
        patched.setattr(Drifting, "step", fails)
        with pytest.warns(UserWarning, match="other episodes with the same seed"):
            assert refused(["train", *words, f"run_dir={run}", "logger=[]"]) == 2
    assert load_checkpoint(run / "checkpoints" / "latest.safetensors")["position"]["step"] == 5
    with pytest.warns(UserWarning, match="another one is begun"):
        main(["train", f"resume={run}"])
    stored = load_checkpoint(run / "checkpoints" / "after_task_1.safetensors")["learner"]["replay"]
    moves = (stored["next_obs"] - stored["obs"])[:, :2].abs()
    assert len(moves) == 30
    assert float(moves.max()) <= 0.1 + 1e-5
    assert stored["begins"].nonzero()[:, 0].tolist() == [0, 5, 25]
    assert torch.isfinite(stored["obs"]).all()


def refused(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_actions_that_mean_something_else_are_a_fault():
    task = make_task("gym", id="Drifting-v0", options={"shrinks": True})
    task.reset(seed=0)
    with pytest.raises(TaskFault, match=r"in Box\(-0.05.* now, and were between \[-0.1, -0.1\]"):
        task.step(np.ones(2))
