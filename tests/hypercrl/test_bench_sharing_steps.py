"""scripts/bench_sharing.py steps, tried on a CPU: each way by its name, with equal parameters."""

import json
from argparse import Namespace

import pytest
import torch
from bench_sharing_grid import Record
from bench_sharing_steps import steps

SMALL = {"device": "cpu", "old_tasks": 1, "seconds": 0.1, "compared": 3, "processes": "2"}


@pytest.fixture
def measured(tmp_path):
    threads = torch.get_num_threads()

    def run(within):
        steps(Namespace(**SMALL, within=within), Record(tmp_path / "steps.json", "cpu"))
        rows = json.loads((tmp_path / "steps.json").read_text())["rows"]
        return {row["what"].strip(): row for row in rows}, (tmp_path / "steps.md").read_text()

    yield run
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_ways_of_sharing_come_to_equal_parameters(measured):
    rows, table = measured(within=1000.0)
    assert list(rows) == ["1 turns", "2 turns", "2 MPS", "2 streams", "2 batch"]
    assert "do not use CUDA" in rows.pop("2 MPS")["error"]
    assert all(row["equal"] and row["steps_per_second"] > 0 for row in rows.values())
    assert len(set(rows["2 batch"]["digests"])) == 2  # each seed has a batch of its own
    assert table.splitlines()[0] == "| runs | turns | MPS | streams | batch |"
    assert [line.count("×") for line in table.splitlines()[2:]] == [1, 3]


def test_what_time_is_not_left_for_is_a_row(measured):
    rows, _ = measured(within=0.0)
    assert {row["error"] for row in rows.values()} == {"no time is left"}
