"""The grid runner on a real Ray cluster of two nodes, on this machine."""

import io
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.bench import Cell, Grid, Status, run_grid
from hypercrl.bench.ray_workers import RayWorkers, places
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


@pytest.mark.parametrize(
    ("nodes", "cpus", "gpus", "wanted"),
    [
        ([{"CPU": 64.0, "GPU": 1.0}], 1, 0.2, 5),  # 1.0 // 0.2 is 4
        ([{"CPU": 64.0, "GPU": 8.0}], 0.1, 0.1, 80),
        ([{"CPU": 16.0, "GPU": 1.0}], 1, 1 / 3, 3),
        ([{"CPU": 3.0}, {"CPU": 3.0}], 2, 0, 2),  # a third one would have a core of each
        ([{"CPU": 64.0}, {"CPU": 1.0, "GPU": 1.0}], 1, 0.5, 1),
        ([{"CPU": 64.0}], 1, 0.5, 0),
        ([], 1, 0, 0),
    ],
)
def test_so_many_cells_as_each_node_has_room_for(nodes, cpus, gpus, wanted):
    assert places(nodes, {"CPU": cpus, "GPU": gpus}) == wanted


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
    cluster.add_node(num_cpus=1, num_gpus=1)
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


FULL_ONCE = """
import torch
from pathlib import Path
from hypercrl.methods.finetune import Finetune


class FullOnce(Finetune):
    def training_step(self, batch):
        if not Path("full").exists():
            Path("full").touch()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().training_step(batch)
"""


@pytest.mark.slow
def test_a_cell_whose_gpu_is_full_asks_for_a_whole_one(cluster, tmp_path, monkeypatch):
    """One of the nodes says that it has a GPU; Ray believes it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "full_once.py").write_text(FULL_ONCE)
    (cell,) = Grid(['method="full_once:FullOnce"', "seed=0", *SMALL], tmp_path / "grid").cells
    workers = RayWorkers(cluster.address, cpus=1, gpus=0.25)
    free = []

    class Watched:
        def options(self, **asked):
            free.append(asked)
            return run.options(**asked)

        remote = staticmethod(workers._run.remote)

    run, workers._run = workers._run, Watched()
    try:
        (progress,) = run_grid([cell], workers, 0, Console(file=io.StringIO()))
    finally:
        workers.close()
    assert (progress.status, progress.attempts) == (Status.DONE, 2)
    assert progress.reason.startswith("out of memory on GPU 0: CUDA out of memory. Tried to")
    assert free == [{"num_gpus": 1}]


@pytest.mark.slow
def test_a_cell_that_no_node_has_room_for(cluster):
    with pytest.raises(UserError, match="no node of the Ray cluster has room"):
        RayWorkers(cluster.address, cpus=2, gpus=0)


@pytest.mark.slow
def test_no_cluster_at_that_address():
    pytest.importorskip("ray")
    with pytest.raises(UserError, match="ray start --head"):
        RayWorkers("127.0.0.1:1", cpus=1, gpus=0)


@pytest.mark.slow
def test_why_a_worker_could_not_begin_is_in_the_log(cluster, tmp_path, monkeypatch):
    """The function lies in a module that the driver has and the nodes have not."""
    import ray

    text = "def run(words, log, folder, environment):\n    return 0\n"
    (tmp_path / "on_the_driver_alone.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    workers = RayWorkers(cluster.address, cpus=1, gpus=0)
    try:
        import on_the_driver_alone  # pyright: ignore[reportMissingImports]

        workers._run = ray.remote(max_retries=0)(on_the_driver_alone.run)
        cell = Cell("x", (), tmp_path / "cells" / "x")
        workers.start(cell, ["train"])
        while not (ended := workers.finished()):
            time.sleep(0.1)
    finally:
        workers.close()
    assert ended == [(cell, 1)]
    assert cell.last_words() == "ModuleNotFoundError: No module named 'on_the_driver_alone'"


@pytest.mark.slow
def test_a_cluster_that_asks_for_tokens_says_what_to_set(tmp_path):
    """In processes of their own, with a home of their own: the token stays there."""
    pytest.importorskip("ray")
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_AUTH_MODE", None)
    port = "6391"
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    begin = ["start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    head = subprocess.Popen(
        [*ray, *begin, "--block"], env={**environment, "RAY_AUTH_MODE": "token"}
    )
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                break
            time.sleep(0.1)
        words = ["cluster=ray", f"address=127.0.0.1:{port}", "seed=0", f"out={tmp_path / 'grid'}"]
        done = subprocess.run(
            [sys.executable, "-m", "hypercrl", "bench", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
    finally:
        head.terminate()  # it ends what it has begun
        head.wait(60)
    assert done.returncode == 2
    assert "cannot be joined" in done.stderr
    assert "set RAY_AUTH_MODE=token here" in done.stderr
