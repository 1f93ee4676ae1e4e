"""What scripts/soak.py makes of its rows: a leak is found, an up and down is none."""

import numpy as np
import pytest

from scripts import soak


def rows(leak=0.0, own=0.0, slower=0.0, files=0, checkpoint=0):
    """Of a run that holds 500 MB, up and down by two per cent, and leaks a share of it."""
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, soak.TASKS)
    return [
        {
            "task": i + 1,
            "kind": soak.KINDS[i % len(soak.KINDS)]["task"],
            "process": 1,
            "env_steps": 5000 * (i + 1),
            "rss": int(5e8 * (1 + noise[i] + leak * i / (soak.TASKS - 1))),
            "own": int(3e8 * (1 + noise[i] + own * i / (soak.TASKS - 1))),
            "files": 9 + files * (i > 10),
            "checkpoint": 2_000_000 + (15_000 + checkpoint) * i,
            "kept": 700_000 + 15_000 * i,
            "random": 0.7 * (1 + slower * (i == soak.TASKS - 2)),
            "planned": 2.0,
            "update": 8.0,
        }
        for i in range(soak.TASKS)
    ]


def failed(rows):
    return {name for name, each in soak.findings(rows).items() if not each["held"]}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, set()),
        ({"leak": 0.05}, {"resident memory"}),
        ({"own": 0.05}, {"of it the process's own"}),
        ({"slower": 0.12}, {"time of a random step"}),
        ({"slower": -0.5}, set()),
        ({"files": 1}, {"open files"}),
        ({"checkpoint": 5000}, {"checkpoint"}),
    ],
)
def test_what_grows_is_found(settings, wanted):
    assert failed(rows(**settings)) == wanted


def test_after_a_resumption_memory_is_of_the_last_process_alone():
    begun, gone_on = rows(), rows()
    for row in gone_on[8:]:
        row.update(process=2, rss=int(1.5 * row["rss"]))
    del gone_on[-1]["random"]  # it was gone on with behind them
    all_of_it = begun[:8] + gone_on[8:]
    assert failed(all_of_it) == set()
    assert len(soak.slowing(all_of_it)["random"]) == len(soak.KINDS) - 1
    assert soak.table(all_of_it).count("\n") == soak.TASKS + 2


def test_a_line_is_followed_exactly():
    line = [{"env_steps": x, "rss": 100 + 3 * x} for x in (0, 10, 50, 100)]
    assert soak.trend(line, "rss") == pytest.approx(3.0)
    assert soak.trend(line[:1], "rss") == 0
