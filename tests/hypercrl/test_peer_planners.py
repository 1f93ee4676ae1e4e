"""Planners of others: what cannot be had is left out with a word, and the rest solves the same."""

import sys

import bench_planner
import peer_planners
import pytest
import torch
from bench_timing import Clock, Report
from bench_workloads import Problem, Workload

CPU = torch.device("cpu")
BUILT_IN = ["plain torch loop", "the original's structure"]
TINY = Workload("tiny", 10, 2, samples=24, horizon=3, elites=4, hidden=(16, 16), iterations=2)
MODULES = {
    "torchrl": "",
    "pytorch_icem": "import a_dependency_of_its_own",
    "mbrl": "raise RuntimeError('operator torchvision::nms does not exist\\nand more')",
    "stable_worldmodel": "import ctypes; ctypes.CDLL('libnowhere.so.1')",
    "tdmpc2": "class TDMPC2:\n    plan = property(lambda self: self.gone)",
}
"""Importable in place of the libraries; each fails in its own way."""


@pytest.fixture
def broken(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text + "\n")
        for loaded in [m for m in sys.modules if m.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("broken")
def test_what_cannot_be_imported_is_left_out_with_one_line(capsys):
    report = Report()
    bench_planner.bench(Problem(TINY, CPU), Clock(CPU), report, repeats=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "is left out" in line]
    reasons = {
        "torchrl CEM": "torchrl.modules",
        "torchrl MPPI": "torchrl.modules",
        "pytorch_icem": "ModuleNotFoundError: No module named 'a_dependency_of_its_own'",
        "mbrl-lib CEM": "RuntimeError: operator torchvision::nms does not exist",
        "stable-worldmodel CEM": "OSError: libnowhere.so.1",
        "TD-MPC2": "AttributeError",
        "TD-MPC2, compile=true": "AttributeError",
    }
    assert len(lines) == len(reasons)
    for line, (name, why) in zip(lines, reasons.items(), strict=True):
        assert f"{name} is left out: " in line
        assert why in line
    rows = {row["variant"]: row for row in report.rows}
    assert {name for name, row in rows.items() if "error" in row} == reasons.keys()
    assert all(rows[name]["median_us"] > 0 for name in (*BUILT_IN, "ours, cem"))


@pytest.mark.usefixtures("broken")
def test_a_library_that_ends_the_process_at_import_is_left_out(tmp_path):
    (tmp_path / "mbrl.py").write_text("raise SystemExit('no display')\n")
    found, left_out = peer_planners.peers(Problem(TINY, CPU))
    assert [peer.name for peer in found] == BUILT_IN
    assert left_out["mbrl-lib CEM"] == "SystemExit: no display"


def test_model_steps_are_counted_by_the_products():
    problem = Problem(TINY, CPU)
    steps = {peer.name: peer.steps for peer in peer_planners.peers(problem)[0]}
    assert steps["plain torch loop"] == 24 * 3 * 2
    assert steps["the original's structure"] == 24 * 3 * 3  # it samples once more at the end
    agent = bench_planner.ours(problem, "cem")
    ours = peer_planners.model_steps(problem, lambda obs: agent.act(obs[None]))
    assert ours == bench_planner.transitions(TINY)


def test_the_table_has_plans_and_model_steps_a_second():
    report = Report()
    bench_planner.bench(Problem(TINY, CPU), Clock(CPU), report, repeats=3)
    row = report.best("tiny", "wall", "the original's structure")
    assert row is not None
    assert row["plans_per_second"] == pytest.approx(1e6 / row["median_us"])
    assert row["model_steps_per_second"] == pytest.approx(216e6 / row["median_us"])
    (line,) = [li for li in bench_planner.summary(report, TINY).splitlines() if "original" in li]
    assert f"{row['plans_per_second']:.1f}" in line
    assert f"{row['model_steps_per_second']:.3g}" in line
