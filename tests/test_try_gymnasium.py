"""scripts/try_gymnasium.py goes on behind an environment that fails, and keeps what it has."""

import json

import gymnasium
import numpy as np
import pytest
import try_gymnasium
from try_gymnasium import Tried, attempt, save


class Failing(gymnasium.Env):
    """Raises an exception of its own where it is told to."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, where: str) -> None:
        self.where = where
        self._fail("make")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._fail("reset")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._fail("step")
        return np.zeros(1, np.float32), 0.0, False, False, {}

    def _fail(self, here: str) -> None:
        if here == self.where:
            raise ArithmeticError(f"a joint burst in {here}")


gymnasium.register("Failing-v0", entry_point=Failing, max_episode_steps=3)


@pytest.mark.parametrize("where", ["make", "reset", "step"])
def test_what_an_environment_raises_is_its_row(where):
    row = attempt(Tried("Failing-v0", {"where": where}))
    assert row["name"] == f"Failing-v0, where {where}"
    assert f"raised ArithmeticError: a joint burst in {where}" in row["message"]


def test_an_exception_of_gymnasiums_own_half_is_told_too(monkeypatch):
    """`Task` tells what its environment raises as a TaskFault; here Gymnasium's is stepped."""
    monkeypatch.setattr(try_gymnasium, "make_task", lambda *_, **__: Quiet())
    row = attempt(Tried("Failing-v0", {"where": "reset"}))
    assert row["message"].startswith("it raised ArithmeticError: a joint burst in reset (")


class Quiet:
    """As much of a task as is asked of it before the first step."""

    observation_space = action_space = Failing.action_space

    def reset(self, seed):
        return None

    def get_state(self):
        return {"physics": [0.0]}


def test_what_is_not_installed_is_named():
    tried = Tried("x:Y-v0", {"size": 2}, ("numpy>=1", "numpy<1", "no-such-package", "gymnasium"))
    assert tried.missing() == ["numpy<1", "no-such-package"]
    assert tried.name == "x:Y-v0, size 2, numpy>=1, numpy<1"


def test_rows_of_other_environments_stay(tmp_path):
    about = {"git": "a", "machine": "b", "versions": {"gymnasium": "1", "mujoco": "2"}}
    names = [each.name for each in try_gymnasium.LIST]
    assert len(set(names)) == len(names)
    rows = [{**about, "name": name, "message": "no"} for name in names[:3]]
    save(tmp_path / "page", [rows[2], rows[0]])
    save(tmp_path / "page", [{**rows[1], "message": "new"}])
    save(tmp_path / "page", [{**rows[2], "message": "newer"}])
    kept = json.loads((tmp_path / "page.json").read_text())["rows"]
    assert [(row["name"], row["message"]) for row in kept] == list(
        zip(names[:3], ["no", "new", "newer"], strict=True)
    )
    assert "0 of 3 ran" in (tmp_path / "page.md").read_text()
