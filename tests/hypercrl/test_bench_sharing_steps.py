"""scripts/bench_sharing.py steps, tried on a CPU: each way by its name, with equal parameters."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "bench_sharing.py"
SMALL = ["--old-tasks", "1", "--seconds", "0.1", "--compared", "3", "--processes", "2"]


def steps(folder, *words):
    command = [sys.executable, str(SCRIPT), "steps", "--device", "cpu", "--out", str(folder)]
    done = subprocess.run([*command, *SMALL, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((folder / "steps.json").read_text())["rows"]
    return {row["what"].strip(): row for row in rows}, (folder / "steps.md").read_text()


def test_the_ways_of_sharing_come_to_equal_parameters(tmp_path):
    rows, table = steps(tmp_path, "--within", "1000")
    assert list(rows) == ["1 turns", "2 turns", "2 MPS", "2 streams", "2 batch"]
    assert "do not use CUDA" in rows.pop("2 MPS")["error"]
    assert all(row["equal"] and row["steps_per_second"] > 0 for row in rows.values())
    assert len(set(rows["2 batch"]["digests"])) == 2  # each seed has a batch of its own
    assert table.splitlines()[0] == "| runs | turns | MPS | streams | batch |"
    assert [line.count("×") for line in table.splitlines()[2:]] == [1, 3]


def test_what_time_is_not_left_for_is_a_row(tmp_path):
    rows, _ = steps(tmp_path, "--within", "0")
    assert {row["error"] for row in rows.values()} == {"no time is left"}
