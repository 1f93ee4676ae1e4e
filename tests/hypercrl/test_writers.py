"""One writer for a run: who else comes is told who it is, and its death lets go."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from hypercrl.base.errors import UserError
from hypercrl.runs.lock import LOCK, locked

HOLDS = """
import sys, time
from pathlib import Path
from hypercrl.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_who_writes_and_a_killed_one_lets_go(tmp_path):
    folder = tmp_path / "new" / "run"
    first = holder(folder)
    who = f"process {first.pid} on {socket.gethostname()} since 20"
    for _ in range(2):  # asking changes nothing
        with pytest.raises(UserError, match=who), locked(folder):
            pass
    first.send_signal(signal.SIGKILL)
    first.wait()
    with locked(folder):
        assert f"process {os.getpid()} " in (folder / LOCK).read_text()
        assert len((folder / LOCK).read_text().splitlines()) == 1
    with locked(folder):  # a block that ends lets go too
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"), locked(tmp_path / "file" / "run"):
        pass


def test_no_locks_no_protection_but_a_word(tmp_path, monkeypatch, capsys):
    def unknown(file, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with locked(tmp_path / "run"):
        assert "knows no locks" in capsys.readouterr().err


RESUMED_BESIDE_ITSELF = """
import subprocess, sys
from hypercrl.cli import main
from hypercrl.training.trainer import Trainer

run, *settings = sys.argv[1:]
act, steps = Trainer._act, 0

def act_and_meet_a_second(self, planned):
    global steps
    steps += 1
    if steps == 100:  # after the first checkpoint
        for words in (["train", f"resume={run}"], ["report", run]):
            called = [sys.executable, "-m", "hypercrl", *words]
            done = subprocess.run(called, stderr=subprocess.PIPE, text=True)
            print(done.returncode, done.stderr.strip(), file=sys.stderr)
    act(self, planned)

Trainer._act = act_and_meet_a_second
main(["train", *settings, f"run_dir={run}"])
"""


def test_a_run_is_not_resumed_beside_itself(tmp_path):
    settings = ["preset=smoke", "device=cpu", "method=finetune", "protocol.num_tasks=1"]
    run = tmp_path / "run"
    process = subprocess.run(
        [sys.executable, "-c", RESUMED_BESIDE_ITSELF, str(run), *settings],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    refused, report = process.stderr.strip().splitlines()
    assert refused.startswith(f"2 hypercrl: {run} is being written to by process ")
    assert report == "0"  # reading needs no lock
    assert (run / "result.json").exists()
