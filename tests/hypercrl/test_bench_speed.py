"""scripts/bench_speed.py: builds beside one another, and what ends late or is not there."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts import bench_speed
from scripts.bench_speed import Build, Row

ROOT = Path(__file__).resolve().parents[2]


def build(tree, name="before", seconds=60.0):
    return Build(name, tree, "cpu", time.monotonic() + seconds)


def measured(builds, parts, out, seconds=50.0):
    return list(bench_speed.measured(builds, parts, out, seconds))


def test_a_part_that_the_older_build_cannot_do_is_a_row_that_says_so(tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "bench_planner.py").write_text("import a_module_that_is_gone\n")
    (scripts / "bench_training.py").write_text("import time; time.sleep(60)\n")
    rows = measured([build(tmp_path)], ["step", "plan", "collect"], tmp_path, seconds=2.0)
    assert [(row.part, row.value, row.failed) for row in rows] == [
        ("step", None, "not done within 2 s"),
        ("plan", None, "ModuleNotFoundError: No module named 'a_module_that_is_gone'"),
        ("collect", None, "this build has no scripts/bench_collection.py"),
    ]


def test_nothing_begins_when_time_is_up(tmp_path):
    begun = time.monotonic()
    rows = measured([build(ROOT, "this", 1.0)], ["run", "step", "plan", "collect"], tmp_path)
    assert {row.failed for row in rows} == {"not begun: no time is left"}
    assert [(row.part, row.variant) for row in rows] == [
        ("run", "16 robots"),
        ("step", ""),
        ("plan", ""),
        ("collect", ""),
        ("run", "one robot"),
    ]
    assert time.monotonic() - begun < 5


def test_collection_is_measured_by_turns_and_whoever_was_last_begins():
    found = [(build, variant) for build, part, variant in bench_speed.jobs(3) if part == "collect"]
    assert found == [
        ("this", ""),
        ("before", ""),
        ("before", "turn 2"),
        ("this", "turn 2"),
        ("this", "turn 3"),
        ("before", "turn 3"),
    ]
    assert tuple(bench_speed.jobs(1)) == bench_speed.JOBS


def test_rows_of_a_script_are_read_though_it_ends_late(tmp_path):
    times = {"part": "wall", "variant": "ours, eager", "median_us": 250.0}
    rows = [
        {"workload": "19 old", "part": "check", "variant": "gradients", "share": 1e-6},
        {"workload": "19 old", **times},
        {
            "workload": "100 old",
            "part": "wall",
            "variant": "ours, eager",
            "error": "MemoryError: 1",
        },
    ]
    (tmp_path / "scripts").mkdir()
    write = f"pathlib.Path(sys.argv[4]).write_text({json.dumps(json.dumps({'rows': rows}))})"
    late = f"import pathlib, sys, time\n{write}\ntime.sleep(60)\n"
    (tmp_path / "scripts" / "bench_training.py").write_text(late)
    late, *found = measured([build(tmp_path)], ["step"], tmp_path, seconds=4.0)
    assert late.failed == "not done within 4 s"
    assert [(row.what, row.unit, row.value, row.failed) for row in found] == [
        ("19 old: gradients", "share", 1e-6, None),
        ("19 old", "ms", 0.25, None),
        ("100 old", "ms", None, "MemoryError: 1"),
    ]


def test_the_table_compares_learning_and_the_ratios_that_are_aimed_at():
    rows = [
        Row("this", "run", "whole", "s", 57.0, "16 robots"),
        *(
            Row("this", "run", f"task {i}", "success", s, "16 robots")
            for i, s in ((1, 1.0), (2, 0.5))
        ),
        Row("before", "run", "whole", "s", 158.0, "one robot"),
        *(Row("before", "run", f"task {i}", "success", 1.0, "one robot") for i in (1, 2)),
        Row("this", "step", "2 old", "ms", 0.10),
        Row("this", "step", "100 old", "ms", 0.12),
        Row("before", "collect", "robots", "steps/s", None, failed="this build has none"),
    ]
    lines = list(bench_speed.show(rows))
    assert lines[1].split() == ["run", "whole,", "s", "57", "158", "75"]
    assert "success per task, this, 16 robots: 1.00 0.50, mean 0.750" in lines
    assert "success per task, before, one robot: 1.00 1.00, mean 1.000" in lines
    assert "run: whole, 16 robots, by before's whole, one robot: 0.361 (target 0.4)" in lines
    assert "step: 100 old, by this's 2 old: 1.200 (target 1.3)" in lines
    assert lines[-1] == "before, collect robots : this build has none"


@pytest.mark.slow
def test_whole_runs_of_two_builds_on_a_cpu(tmp_path):
    words = ["--device", "cpu", "--before", str(ROOT), "--parts", "run", "--out", str(tmp_path)]
    script = str(ROOT / "scripts" / "bench_speed.py")
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    runs = {(row["build"], row["variant"]) for row in rows if row["value"] is not None}
    assert runs == {("this", "16 robots"), ("before", "one robot"), ("this", "one robot")}
    assert sum("success per task" in line for line in done.stdout.splitlines()) == 3
