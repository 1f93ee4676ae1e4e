"""The script that replays recorded errors to task inference, on errors that are known by hand."""

import json
from pathlib import Path

import alarms
import numpy as np
import pytest


def test_even_errors_alarm_where_the_sum_of_their_surplus_says():
    """f times the level is a surplus of f − 4, and f falls to 1 within 300 steps."""
    errors, draw = np.full(700, 0.01), np.random.default_rng(0)
    found = alarms.lived(alarms.Replayed(False), errors, draw, k=1.0, f=30.0)
    total = steps = 0
    while total <= 600:
        total += 30.0 ** (1 - steps / 300) - 4
        steps += 1
    assert (found.false, found.ends) == (0, [])
    assert found.late == steps + 60
    assert (found.kind, found.left, found.taken, found.usual) == ("S", (0, 0), (0, 0), (0, 0))


@pytest.mark.parametrize("by_logarithms", [False, True])
def test_errors_within_the_allowance_alarm_by_their_logarithms_which_alone_confirm_it(
    by_logarithms,
):
    """A level that remembers how the model learned is ten times its errors: six times these are
    within the allowance, and log 6 is 0.3 a step beyond what lasts, 120 in some 400."""
    rule = alarms.Replayed(by_logarithms)
    for _ in range(500):
        rule.step([0.01])
    rule.levels[0] *= 10
    changed = any(rule.step([0.06]) is not None for _ in range(600))
    assert changed == by_logarithms
    assert rule.ends[0] == f"L, S = 0: {'change' if by_logarithms else 'stay'}"


def test_what_is_kept_is_replayed(capsys):
    kept = Path(__file__).parents[2] / "docs/results/memory/alarms.json"
    runs = json.loads(kept.read_text())["runs"]
    assert len(runs) == 12
    assert {len(run["errors"]) for run in runs} == {700}
    alarms.replay(kept, 1)
    assert "L, S > 0" in capsys.readouterr().out
