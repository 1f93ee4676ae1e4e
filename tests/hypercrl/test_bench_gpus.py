"""What a grid takes of a machine: its cores, its GPUs, and how many cells at a time."""

import shutil
import subprocess

import pytest
from test_mps import GPUS, machine, told

from hypercrl.base import cores
from hypercrl.bench import Grid, LocalWorkers, mps
from hypercrl.bench.gpus import Gpu, NoAnswer, visible_gpus
from hypercrl.cli import main
from hypercrl.commands import bench
from hypercrl.training.footprint import ON_A_GPU, gpu_bytes

__all__ = ["machine"]  # a fixture
GIB = 2**30
SMALL = (
    "preset=smoke",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "protocol.planned_steps=30",
    "method=finetune",
)


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [
        ("max 100000", 12),
        ("400000 100000", 4),
        ("150000 100000", 2),
        ("1600000 100000", 12),
        ("1000 100000", 1),
        ("damaged", 12),
        (None, 12),
    ],
)
def test_a_container_is_given_so_many_cores(tmp_path, monkeypatch, quota, wanted):
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: set(range(12)))
    monkeypatch.setattr(cores, "QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores.cores() == wanted
    assert LocalWorkers(4).threads == max(1, wanted // 4)
    assert LocalWorkers(64).threads == 1


@pytest.mark.parametrize(
    ("device", "dealt"), [("auto", 2), ("cuda", 2), ("cpu", 0), ("cuda:1", 0), (None, 2)]
)
def test_gpus_are_dealt_unless_the_cells_do_without_or_name_one(
    tmp_path, monkeypatch, device, dealt
):
    """Without `device=` a run takes the GPU where there is one."""
    monkeypatch.setattr(bench, "visible_gpus", lambda _: [Gpu(name, GIB) for name in GPUS])
    words = [f"device={device}"] if device else []
    assert len(bench._gpus(Grid(["seed=0,1", *words], tmp_path))) == dealt


def test_without_a_driver_there_are_none_to_deal(tmp_path, monkeypatch):
    def fail(_):
        raise NoAnswer("no driver")

    monkeypatch.setattr(bench, "visible_gpus", fail)
    assert bench._gpus(Grid(["seed=0", "device=cuda"], tmp_path)) == []


@pytest.mark.parametrize(
    ("free", "available", "wanted"),
    [
        ([], 6, 6),
        ([140, 140], 128, 32),
        ([140, 140], 16, 16),
        ([140] * 8, 128, 128),
        ([8, 140], 128, 14),
        ([0.5], 16, 1),
    ],
)
def test_cells_at_a_time_by_cores_and_memory(tmp_path, monkeypatch, free, available, wanted):
    """A GPU with 8 GiB free takes seven cells of a little more than one, and so does each other."""
    monkeypatch.setattr(bench, "cores", lambda: available)
    monkeypatch.setattr(bench, "gpu_bytes", lambda _: int(1.1 * GIB))
    grid = Grid(["seed=0", "method=hnet,single"], tmp_path)
    assert bench._room(grid, [Gpu("GPU", int(gib * GIB)) for gib in free]) == wanted


def test_what_a_run_takes_of_a_gpu_grows_with_its_parts(tmp_path):
    words = ["seed=0", "method=hnet,single", "dynamics.hidden=[200,200],[2000,2000]"]
    hnet, large_hnet, single, large_single = map(gpu_bytes, Grid(words, tmp_path).configs)
    assert ON_A_GPU < single < hnet < large_hnet
    assert single < large_single < large_hnet
    # The last layer alone writes 4 million weights from 50 numbers, with Adam's two moments.
    assert large_hnet - ON_A_GPU > 4 * 4 * 50 * 4_000_000
    (broken,) = Grid(["seed=0", "env.tasks=[{task: nowhere}]", *SMALL], tmp_path).configs
    assert gpu_bytes(broken) > ON_A_GPU


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["mps=maybe"], "mps is one of auto, true, false, not 'maybe'"),
        (["mps=true", "device=cpu"], "mps=true, but the runs do not use CUDA"),
        (["mp=true"], "Did you mean"),
    ],
)
def test_mistakes(tmp_path, capsys, words, wanted):
    with pytest.raises(SystemExit) as ended:
        main(["bench", "seed=0", f"out={tmp_path / 'grid'}", *words])
    assert ended.value.code == 2
    assert wanted in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_grid_through_the_command_line_is_served_and_ends_its_daemon(
    machine, tmp_path, monkeypatch, capsys, forked_cells
):
    """A GPU by name; its cells, which find none, compute on the processor."""
    monkeypatch.setattr(bench, "visible_gpus", lambda _: [Gpu(GPUS[0], GIB)])
    seen = []
    start = LocalWorkers.start

    def started(self, cell, words, alone=False):
        seen.append((cell.name, dict(self.service.environment_of(cell.name, alone))))
        start(self, cell, words, alone)
        seen[-1] += (self.gpus[self._running[-1].gpu],)

    monkeypatch.setattr(LocalWorkers, "start", started)
    out = tmp_path / "grid"
    main(["bench", "seed=0,1", "workers=2", *SMALL, f"out={out}"])
    said = capsys.readouterr().out
    assert said.startswith("up to 2 runs share a GPU through CUDA MPS")
    assert [gpu for _, _, gpu in seen] == ["GPU-a", "GPU-a"]
    assert {environment[mps.PIPES] for _, environment, _ in seen} == {
        str(path / "pipe") for path in machine.iterdir() if path.name.startswith("hypercrl-mps-")
    }
    assert told(machine) == ["begun for GPU-a", "quit -t 10"]
    main(["bench", "seed=0,1", "workers=2", *SMALL, f"out={out}"])
    said = capsys.readouterr().out
    assert "MPS" not in said  # there was nothing left to run
    assert len(told(machine)) == 2


DRIVER = """
#include <string.h>
static int current;
int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { memset(uuid, 0xa0 + device, 16); return 0; }
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
    memset(uuid, device ? 0xb1 : 0xa0, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    *context = (void *)(0x7f0000000000 + device); return 0; }
int cuCtxSetCurrent(void *context) { current = (long)context & 1; return 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) {
    if (FAILS) return 2;
    *free = 6000000000 + current; *total = 8000000000; return 0; }
int cuGetErrorString(int code, const char **said) { *said = "out of memory"; return 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_what_the_driver_says_is_read(tmp_path):
    """A library in place of the driver's: one GPU, and an instance of MIG on another."""
    (tmp_path / "driver.c").write_text(DRIVER)
    compiles = ["cc", "-shared", "-fPIC", "-include", "stddef.h", str(tmp_path / "driver.c")]
    library = ["-o", str(tmp_path / "libcuda.so.1")]
    environment = {"LD_LIBRARY_PATH": str(tmp_path)}
    subprocess.run([*compiles, *library, "-DFAILS=0"], check=True)
    assert visible_gpus(environment) == [
        Gpu("GPU-a0a0a0a0-a0a0-a0a0-a0a0-a0a0a0a0a0a0", 6_000_000_000),
        Gpu("MIG-b1b1b1b1-b1b1-b1b1-b1b1-b1b1b1b1b1b1", 6_000_000_001),
    ]
    subprocess.run([*compiles, *library, "-DFAILS=1"], check=True)
    with pytest.raises(NoAnswer, match=r"cuMemGetInfo_v2: out of memory \(2\)"):
        visible_gpus(environment)
