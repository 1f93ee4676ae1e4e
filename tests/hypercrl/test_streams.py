"""A run outlives its terminal: closed, full and unread standard output ends nothing."""

import os
import subprocess
import sys

import pytest
from test_command_line import TINY

PROGRAM = [sys.executable, "-m", "hypercrl"]


def shell(command, *words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "0"}
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command, "bash", *PROGRAM, *words],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("redirected", "told"),
    [
        (">/dev/full", "standard output: No space left on device; going on without it"),
        (">&- 2>&-", ""),
        ("| head -c 5", ""),
    ],
)
def test_a_run_goes_on_to_its_result(redirected, told, tmp_path):
    run = tmp_path / "run"
    done = shell(f'"$@" {redirected}', "train", *TINY, f"run_dir={run}")
    assert done.returncode == 0
    assert (run / "result.json").stat().st_size > 0
    assert (run / "report" / "index.html").exists()
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert told in done.stderr
    # Nothing that was meant for the terminal has gone into a file that took its descriptor.
    assert all(line.startswith("{") for line in (run / "metrics.jsonl").read_text().splitlines())


def test_a_mistake_is_told_by_its_exit_code_even_where_nothing_can_be_said():
    assert shell('"$@" 2>/dev/full', "tasks", "nothing").returncode == 2
