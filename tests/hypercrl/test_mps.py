"""CUDA MPS for a grid: begun, handed on, shared and ended, whatever ends the grid.

The daemon is a program that stands for NVIDIA's (mps_control.py); the real one is tried on a GPU in
test_gpu_sharing.py.
"""

import io
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.bench import Cell, LocalWorkers, Status, mps, run_grid
from hypercrl.bench.gpus import Gpu, NoAnswer, visible_gpus

GPUS = ("GPU-a", "GPU-b")
HERE = Path(__file__).parent


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two GPUs and MPS's program; yields the folder of what a grid puts there."""
    programs = tmp_path / "bin"
    programs.mkdir()
    # The name of a socket has 107 bytes at most, which pytest's folders may use up.
    places = Path(tempfile.mkdtemp(prefix="mps", dir="/tmp"))
    program = programs / mps.CONTROL
    program.write_text(f"#!{sys.executable}\n{(HERE / 'mps_control.py').read_text()}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(places))
    monkeypatch.setenv("USUAL_MPS_FOLDER", str(tmp_path / "usual"))
    monkeypatch.delenv(mps.PIPES, raising=False)
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(mps, "visible_gpus", see)
    yield places
    for number in (*tmp_path.rglob("*.pid"), *places.rglob("*.pid")):
        with suppress(ProcessLookupError):
            os.kill(int(number.read_text()), signal.SIGKILL)
    shutil.rmtree(places)


def see(environment):
    return [Gpu(name, 1) for name in environment["CUDA_VISIBLE_DEVICES"].split(",")]


def daemons(places):
    """Numbers of those that live."""
    return [int(number.read_text()) for number in places.rglob("*.pid")]


def told(places):
    """What daemons were told, questions whether they are there aside."""
    logs = (log.read_text().splitlines() for log in places.rglob("control.log"))
    return [line for log in logs for line in log if line != "get_server_list"]


def lives(number):
    with suppress(ProcessLookupError):
        os.kill(number, 0)
        with open(f"/proc/{number}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def test_runs_that_share_a_gpu_are_served_until_the_grid_ends(machine):
    said = []
    with mps.served(GPUS, 5, "auto", said.append) as service:
        (number,) = daemons(machine)
        assert lives(number)
        assert service.serves
        pipes = Path(service.environment[mps.PIPES])
        assert (pipes / "control").is_socket()
        assert set(service.environment) == {mps.PIPES, mps.LOGS}
        assert stat.S_IMODE(pipes.parent.stat().st_mode) == 0o700
        assert pipes.is_relative_to(machine)
    assert said == ["up to 3 runs share a GPU through CUDA MPS (a daemon that ends with this grid)"]
    assert told(machine) == ["begun for GPU-a,GPU-b", "quit -t 10"]
    assert not pipes.exists()


@pytest.mark.parametrize(
    ("gpus", "runs", "wish", "added"),
    [
        (GPUS, 2, "auto", {}),
        ((), 16, "auto", {}),
        ((), 16, "false", {}),
        (GPUS, 5, "false", mps.OUTSIDE),
    ],
)
def test_nothing_is_begun_where_nothing_is_shared(machine, gpus, runs, wish, added):
    said = []
    with mps.served(gpus, runs, wish, said.append) as service:
        assert service.environment == added
        assert not service.serves
    assert not said
    assert not list(machine.iterdir())


def break_program(text):
    program = shutil.which(mps.CONTROL)
    assert program is not None
    Path(program).write_text(f"#!/bin/sh\n{text}\n")


@pytest.mark.parametrize(
    ("breaks", "why"),
    [
        (lambda m, mp: mp.setenv("PATH", "/nonexistent"), "there is no nvidia-cuda-mps-control"),
        (
            lambda m, mp: break_program('echo "not for you"; exit 1'),
            r"its daemon does not begin \(not for you\)",
        ),
        (lambda m, mp: mp.setattr(mps, "visible_gpus", visible_gpus), "cannot use the GPU"),
        (
            lambda m, mp: mp.setattr(mps, "visible_gpus", lambda e: [Gpu("GPU-a", 1)]),
            "sees GPU-a in place of GPU-a, GPU-b",
        ),
        (lambda m, mp: mp.setattr(mps, "MOST_CLIENTS", 2), "serves 2 processes a GPU at most"),
    ],
)
def test_where_it_cannot_serve_it_says_why(machine, monkeypatch, breaks, why):
    """The third asks the real driver, which a machine of CI has not got."""
    breaks(machine, monkeypatch)
    said = []
    with mps.served(GPUS, 5, "auto", said.append) as service:
        assert not service.environment
    assert len(said) == 1
    assert said[0].startswith("runs take turns on the GPU, without CUDA MPS: ")
    with (
        pytest.raises(UserError, match=f"mps=true, but .*{why}"),
        mps.served(GPUS, 5, "true", said.append),
    ):
        pass
    assert not [number for number in daemons(machine) if lives(number)]


def test_it_is_not_asked_for_without_cuda(machine):
    with (
        pytest.raises(UserError, match="the runs do not use CUDA"),
        mps.served((), 5, "true", print),
    ):
        pass


def test_somebody_elses_folder_is_not_used(machine):
    with mps.served(GPUS, 5, "true", print) as service:
        folder = Path(service.environment[mps.PIPES]).parent
    shutil.rmtree(folder)
    folder.symlink_to("/etc")
    said = []
    with mps.served(GPUS, 5, "auto", said.append) as service:
        assert not service.environment
    assert "is somebody else's" in said[0]


@pytest.mark.parametrize("place", [None, "own"])
def test_a_daemon_that_is_there_already_is_used_as_it_is(machine, monkeypatch, tmp_path, place):
    folder = tmp_path / "usual" if place is None else tmp_path / place
    folder.mkdir()
    if place:
        monkeypatch.setenv(mps.PIPES, str(folder))
    of_another = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": "0",
        mps.PIPES: str(folder),
        mps.LOGS: str(tmp_path),
    }
    subprocess.run([mps.CONTROL, "-d"], env=of_another, check=True)
    said = []
    with mps.served(GPUS, 5, "auto", said.append) as service:
        assert service.environment == {mps.PIPES: str(folder) if place else mps.USUAL}
    assert "the daemon that runs here already" in said[0]
    assert lives(int((folder / f"{mps.CONTROL}.pid").read_text()))
    assert not list(machine.iterdir())


def test_grids_on_the_same_gpus_share_a_daemon_and_the_last_ends_it(machine):
    with mps.served(GPUS, 5, "auto", print) as first:
        (number,) = daemons(machine)
        with mps.served(GPUS[::-1], 8, "auto", print) as second:
            assert first.environment == second.environment
            assert daemons(machine) == [number]
        assert lives(number)
        with mps.served(GPUS[:1], 8, "auto", print) as third:
            assert third.environment != first.environment
    assert told(machine).count("begun for GPU-a,GPU-b") == 1
    assert told(machine).count("quit -t 10") == 2
    assert not daemons(machine)


GRID = """
import sys, time
from hypercrl.bench import mps
from hypercrl.bench.gpus import Gpu
from hypercrl.base.interrupts import termination_interrupts
mps.visible_gpus = lambda e: [Gpu(n, 1) for n in e["CUDA_VISIBLE_DEVICES"].split(",")]
with termination_interrupts(), mps.served(("GPU-a", "GPU-b"), 5, "auto", print):
    print("begun", flush=True)
    {then}
"""


@pytest.mark.parametrize(
    ("then", "number"),
    [
        ("raise RuntimeError", None),
        ("time.sleep(60)", signal.SIGINT),
        ("time.sleep(60)", signal.SIGTERM),
        ("time.sleep(60)", signal.SIGKILL),
    ],
)
def test_however_a_grid_ends_no_daemon_stays(machine, then, number):
    """But for SIGKILL, after which the next grid ends it before it begins its own."""
    with subprocess.Popen(
        [sys.executable, "-c", GRID.format(then=then)], stdout=subprocess.PIPE, text=True
    ) as grid:
        assert grid.stdout is not None
        while grid.stdout.readline() not in ("begun\n", ""):
            pass
        if number is not None:
            grid.send_signal(number)
        grid.wait(30)
    if number == signal.SIGKILL:
        (left,) = daemons(machine)
        assert lives(left)
        with mps.served(GPUS, 5, "auto", print):
            assert not lives(left)
            assert [lives(daemon) for daemon in daemons(machine)] == [True]
    assert not daemons(machine)
    assert told(machine)[-1] == "quit -t 10"


def test_a_daemon_that_does_not_quit_is_killed(machine, monkeypatch):
    monkeypatch.setenv("MPS_QUITS", "false")
    monkeypatch.setattr(mps, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(mps, "QUIT_SECONDS", 0)
    with mps.served(GPUS, 5, "auto", print):
        (number,) = daemons(machine)
    deadline = time.monotonic() + 10
    while lives(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(number)


RUN = """
import os, pathlib, time
told = pathlib.Path({told!r})
served = os.environ["CUDA_MPS_PIPE_DIRECTORY"] != "/nonexistent"
with open({folder!r} + "/attempts", "a") as attempts:
    print(served, file=attempts)
{does}
open({folder!r} + "/result.json", "w").write("{{}}")
"""
FAULTS = """
time.sleep(1)
told.touch()
raise SystemExit(3)
"""
SUFFERS = """
while served and not told.exists():
    time.sleep(0.05)
if served:
    raise SystemExit(3)
"""


def test_a_fault_on_a_shared_gpu_is_in_the_end_its_own_runs_alone(machine, tmp_path):
    """MPS ends whoever it serves with the one that faults, which does so wherever it runs."""
    does = {"faults": FAULTS, "suffers": SUFFERS, "too": SUFFERS, "waits": "", "waits too": ""}
    cells = [Cell(name, (), tmp_path / "cells" / name) for name in does]

    class Stubs(LocalWorkers):
        def start(self, cell, words, alone=False):
            cell.folder.mkdir(parents=True, exist_ok=True)
            program = {"told": str(tmp_path / "told"), "folder": str(cell.folder)}
            text = RUN.format(does=does[cell.name], **program)
            stub = tmp_path / "stub"
            stub.write_text(f"#!{sys.executable}\n{text}")
            stub.chmod(0o755)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "executable", str(stub))
                super().start(cell, words, alone)
                time.sleep(0.3)  # until the stub, which the next one overwrites, is read

    console = Console(file=io.StringIO(), width=200)
    with mps.served(("GPU-a",), 3, "auto", print) as service:
        board = run_grid(cells, Stubs(3, ("GPU-a",), service), 0, console)
    attempts = {c.name: (c.folder / "attempts").read_text().split() for c in cells}
    assert attempts == {
        "faults": ["True", "False", "False"],
        "suffers": ["True", "False"],
        "too": ["True", "False"],
        "waits": ["True"],
        "waits too": ["True"],
    }
    assert {p.cell.name for p in board if p.status is not Status.DONE} == {"faults"}


def test_who_ended_by_a_fault_or_is_alone_is_not_served_again():
    service = mps.Service({mps.PIPES: "/here"})
    assert service.environment_of("one", False) == {mps.PIPES: "/here"}
    assert [service.code("one", code) for code in (0, 1, 2, -9, 3, 3)] == [
        *(0, 1, 2, -9),
        mps.SHARED_FAULT,
        3,
    ]
    assert service.environment_of("one", False) == mps.OUTSIDE
    assert service.environment_of("other", True) == mps.OUTSIDE
    assert service.code("other", 3) == 3
    for without in (mps.Service(), mps.Service(mps.OUTSIDE)):
        assert without.code("one", 3) == 3
        assert without.environment_of("one", False) == without.environment


def test_why_the_driver_does_not_answer():
    with pytest.raises(NoAnswer, match=r"libcuda|cuInit"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": "", "LD_LIBRARY_PATH": "/nonexistent"})
