"""Planners of others: what cannot be imported is left out with a word."""

from pathlib import Path

import torch

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_a_library_without_its_own_dependency_is_left_out(tmp_path, monkeypatch, capsys):
    (tmp_path / "pytorch_icem.py").write_text("import a_dependency_of_its_own\n")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.syspath_prepend(str(tmp_path))
    import bench_workloads
    import peer_planners

    libraries = {"pytorch_icem": peer_planners.LIBRARIES["pytorch_icem"]}
    monkeypatch.setattr(peer_planners, "LIBRARIES", libraries)
    problem = bench_workloads.Problem(bench_workloads.WORKLOADS[0], torch.device("cpu"))
    names = [name for name, _ in peer_planners.peers(problem)]
    assert names == ["plain torch loop", "the original's structure"]
    assert "pytorch_icem cannot be imported: left out" in capsys.readouterr().out
