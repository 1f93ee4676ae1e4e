"""One writer for a run: who else comes is told who it is, and its death lets go."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest
from forked import ended

from hypercrl.base.errors import UserError
from hypercrl.base.lock import LOCK, locked
from hypercrl.cli import main
from hypercrl.training.trainer import Trainer

HOLDS = """
import sys, time
from pathlib import Path
from hypercrl.base.lock import locked
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


def test_a_run_is_not_resumed_beside_itself(tmp_path, monkeypatch):
    run, beside = tmp_path / "run", []
    act = Trainer._act

    def act_and_meet_others(self, planned):
        if len(beside) == 100:  # after the first checkpoint
            beside.append(ended(main, ["train", f"resume={run}"]))
            beside.append(ended(main, ["report", str(run)]))
        else:
            beside.append(None)
        act(self, planned)

    monkeypatch.setattr(Trainer, "_act", act_and_meet_others)
    settings = ["preset=smoke", "device=cpu", "method=finetune", "protocol.num_tasks=1"]
    main(["train", *settings, f"run_dir={run}"])
    (code, said), (report, _) = filter(None, beside)
    assert code == 2
    assert said.startswith(f"hypercrl: {run} is being written to by process {os.getpid()} on ")
    assert report == 0  # reading needs no lock
    assert (run / "result.json").exists()


def test_of_two_multiruns_that_begin_in_one_folder_one_is_refused(tmp_path, monkeypatch):
    """Its jobs were mixed among the other's, some refused and some trained in their places."""
    runs = tmp_path / "runs"
    words = ["train", "-m", "preset=smoke", "device=cpu", "seed=0,1", f"run_dir={runs}"]
    others, theirs = [], []

    def train(_):
        if not others:
            others.append(ended(main, words))
            theirs.extend(sorted(path.name for path in runs.iterdir()))

    monkeypatch.setattr("hypercrl.commands.train.train", train)
    main(words)
    ((code, said),) = others
    assert code == 2
    assert said.startswith(f"hypercrl: {runs} is being written to by process {os.getpid()} on")
    assert said.endswith("Wait until it ends, or end it. Or give another run_dir.\n")
    assert theirs == [LOCK, "multirun.yaml"]
    assert [path.name for path in runs.iterdir()] == ["multirun.yaml"]


def test_a_lock_that_its_holder_takes_away_holds_nobody_else(tmp_path):
    """Whoever opened it before, and waits for it, is not alone in the folder with a new one."""
    with locked(tmp_path, keep=False):
        waiting = os.open(tmp_path / LOCK, os.O_RDWR)
    assert not (tmp_path / LOCK).exists()
    fcntl.flock(waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held = pytest.raises(UserError, match="being written to")
    with locked(tmp_path, keep=False), held, locked(tmp_path):
        pass
    os.close(waiting)
    with locked(tmp_path):
        pass
    with locked(tmp_path, keep=False):
        pass
    assert (tmp_path / LOCK).exists()


def test_a_lock_taken_away_between_its_opening_and_its_locking_is_made_anew(tmp_path, monkeypatch):
    flock, taken = fcntl.flock, []

    def take_away_first(file, how):
        if not taken:
            taken.append((tmp_path / LOCK).unlink())
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", take_away_first)
    held = pytest.raises(UserError, match=f"process {os.getpid()} on")
    with locked(tmp_path), held, locked(tmp_path):
        pass
