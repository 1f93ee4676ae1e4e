"""The grid runner on a real Ray cluster of two nodes, on this machine."""

import io
import os
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.bench import Grid, Status, run_grid
from hypercrl.bench.ray_workers import RayWorkers
from hypercrl.cli import main

SMALL = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "protocol.planned_steps=60",
    "protocol.checkpoint_every=10",
)


def test_without_ray_one_message_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit):
        main(["bench", "cluster=ray", "seed=0", f"out={tmp_path / 'grid'}"])
    assert 'pip install "hypercrl[ray]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def worker_processes():
    """Ray workers that run a cell now."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes().startswith(b"ray::_run_cell"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    cluster.shutdown()


@pytest.mark.slow
def test_a_worker_killed_in_mid_cell_costs_only_a_checkpoints_way(cluster, tmp_path):
    grid = Grid(["method=finetune,single", "seed=0", *SMALL], tmp_path / "grid")
    with grid.claim():
        pass

    class Killing(RayWorkers):
        killed = 0

        def finished(self):
            begun = [c for c in grid.cells if (c.folder / "checkpoints").exists()]
            if begun and not self.killed and (workers := worker_processes()):
                self.killed = workers[0]
                os.kill(self.killed, signal.SIGKILL)
            return super().finished()

    workers = Killing(cluster.address, cpus=1, gpus=0)
    try:
        assert workers.slots == 2
        board = run_grid(grid.cells, workers, 2, Console(file=io.StringIO()))
    finally:
        workers.close()
    assert workers.killed
    assert all(p.status is Status.DONE for p in board)
    assert sorted(p.attempts for p in board) == [1, 2]
    assert "finetune" in grid.cells[0].log.read_text()


@pytest.mark.slow
def test_a_cell_that_no_node_has_room_for(cluster):
    with pytest.raises(UserError, match="no node of the Ray cluster has room"):
        RayWorkers(cluster.address, cpus=2, gpus=0)


@pytest.mark.slow
def test_no_cluster_at_that_address():
    pytest.importorskip("ray")
    with pytest.raises(UserError, match="ray start --head"):
        RayWorkers("127.0.0.1:1", cpus=1, gpus=0)
