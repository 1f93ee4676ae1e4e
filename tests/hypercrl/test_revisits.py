"""What the script says of decisions in sequences whose tasks come again, on ones made by hand."""

import json
from pathlib import Path

import pytest
import revisits

TASKS = """\
env:
  tasks: [{density: 1}, {density: 2}, {density: 3}, {density: 1}, {density: 2}]
protocol: {blur: 0, order: ORDER, num_tasks: NUMBER, random_steps: 600, planned_steps: 1200}
"""


def decision(task: int, chosen: int, env_step: int, *, new: bool = False) -> dict:
    return {"task": task, "chosen": chosen, "new": new, "env_step": env_step}


NEWS = [decision(1, 1, 1900, new=True), decision(2, 2, 3700, new=True)]


def run(folder: Path, number: str, decisions: list[dict], order: str = "null"):
    result = {"env": "e", "task_id": "inferred", "seed": 0, "success": [[0.0], [1.0]]}
    result |= {"decisions": decisions, "seconds": 1.0, "git": None}
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.yaml").write_text(TASKS.replace("NUMBER", number).replace("ORDER", order))
    return revisits.read(folder)


def test_returns_and_news_are_told_apart(tmp_path):
    """The first return's task is gone back to and left again; then it is taken for a new one."""
    decisions = [*NEWS, decision(3, 0, 5500), decision(3, 2, 6000), decision(4, 1, 7300)]
    found = run(tmp_path, "5", decisions)
    assert (found.returns, found.news, found.extra) == ([False, True], [True, True], 0)
    assert found.delays == [100, 100, 100]
    again = [*NEWS, decision(3, 3, 5500, new=True), decision(4, 1, 7300)]
    found = run(tmp_path, "5", again)
    assert (found.returns, found.extra) == ([False, True], 1)


def test_a_task_that_was_not_learned_is_not_judged(tmp_path):
    """Three of a sequence of five: nothing comes again."""
    found = run(tmp_path, "3", NEWS)
    assert (found.returns, found.news, found.extra) == ([], [True, True], 0)
    assert run(tmp_path, "null", NEWS).returns == [False, False]


def test_tasks_in_another_order_come_again_where_it_says(tmp_path):
    """The first, then the same once more, then a new one."""
    found = run(tmp_path, "3", [decision(2, 1, 3700, new=True)], "[1, 4, 2, 3]")
    assert (found.returns, found.news, found.extra) == ([True], [True], 0)
    assert found.delays == [100]


def test_success_is_compared_with_that_of_the_same_seeds():
    """The limit cut the first seed, the easy one, without labels, and the third one with them."""

    def made(seed: int, success: float):
        return revisits.Run("e", "", 0, seed, [], [], 0, [], [success, success], 1.0, None)

    inferred, given = [made(1, 0.4), made(2, 0.9)], [made(0, 1.0), made(1, 0.5)]
    assert revisits.share_of(inferred, given) == pytest.approx(0.8)
    assert revisits.share_of(inferred, given[:1]) is None
    assert revisits.share_of(inferred, [made(1, 0.0)]) is None
