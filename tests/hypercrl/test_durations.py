"""Medians of many durations, in little room."""

import random
from statistics import median

import pytest

from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.training.durations import Durations


@pytest.mark.parametrize("count", [1, 2, 5, 1000, 20_001])
def test_a_median_is_off_by_half_a_percent_at_most(count):
    draws = random.Random(count)
    seconds = [draws.lognormvariate(-5, 2) for _ in range(count)]
    durations = Durations()
    durations.extend(seconds)
    assert len(durations) == count
    assert durations.median() == pytest.approx(median(seconds), rel=0.005)


def test_room_does_not_grow_with_their_number(tmp_path):
    """Of all that a clock can give, 0 and a stopped machine included."""
    draws = random.Random(0)
    durations = Durations()
    durations.extend([0.0, -1e-9, 1e300, float("inf")])
    durations.extend([10 ** draws.uniform(-12, 12) for _ in range(100_000)])
    assert len(durations.counts) <= 4167
    path = tmp_path / "c"
    save_checkpoint(path, {"plan_seconds": {"counts": durations.counts}})
    assert path.stat().st_size < 60_000
    assert Durations(**load_checkpoint(path)["plan_seconds"]) == durations


def test_none_have_no_median():
    with pytest.raises(ValueError, match="no durations"):
        Durations().median()
