"""Ctrl-C and SIGTERM in a real terminal: the cursor comes back, and the message is a command."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module

import pytest

from hypercrl.base.errors import UserError
from hypercrl.base.interrupts import Interrupted, answered, termination_interrupts
from hypercrl.cli import main

TINY = (
    "preset=smoke",
    "device=cpu",
    "method=finetune",
    "dynamics.hidden=[16]",
    "protocol.num_tasks=1",
    "protocol.checkpoint_every=10",
)
LONG = ("protocol.planned_steps=100000",)
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"


def interrupted(words, sign, until, folder):
    """Exit code and all output of a command that gets a signal once it has written `until`."""
    terminal, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "hypercrl", *words],
        cwd=folder,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "200"},
        start_new_session=True,
    )
    os.close(slave)
    written, sent = b"", False
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    try:
        while True:
            try:
                written += os.read(terminal, 4096)
            except OSError:  # the other end is closed: the process is gone
                break
            if not sent and until in written:
                process.send_signal(sign)
                sent = True
        return process.wait(30), written
    finally:
        watchdog.cancel()
        process.kill()
        os.close(terminal)


def command_in(written):
    said = written.decode().replace("\r\n", "\n").strip()
    return shlex.split(said.rpartition("continue with: ")[2])


def test_training_says_how_to_go_on(tmp_path):
    words = ["train", *TINY, *LONG, "run_dir=a run"]
    code, written = interrupted(words, signal.SIGTERM, b"steps", tmp_path)
    assert code == 143
    assert HIDE in written
    assert written.rfind(SHOW) > written.rfind(HIDE)
    assert command_in(written) == ["hypercrl", "train", "resume=a run"]
    # It goes on, and is interrupted with the same words.
    code, written = interrupted(command_in(written)[1:], signal.SIGINT, b"steps", tmp_path)
    assert code == 130
    assert command_in(written) == ["hypercrl", "train", "resume=a run"]


def test_a_grid_says_its_own_command(tmp_path):
    words = ["bench", *TINY, *LONG, "env=push", "seed=0", "out=my grid"]
    code, written = interrupted(words, signal.SIGTERM, b"running", tmp_path)
    assert code == 143
    assert written.rfind(SHOW) > written.rfind(HIDE)
    assert command_in(written) == ["hypercrl", *words]


def test_a_replay_has_nothing_to_go_on_with(tmp_path, short_episodes):
    tiny = ("preset=smoke", "device=cpu", "protocol.num_tasks=1", "protocol.final_episodes=1")
    oracle = ("planner.dynamics=simulator", "planner.samples=2", "planner.elites=1")
    main(["train", *tiny, *oracle, f"run_dir={tmp_path / 'run'}"])
    words = ["play", "run=run", "episodes=100000"]
    code, written = interrupted(words, signal.SIGINT, b"episode 1", tmp_path)
    assert code == 130
    assert written.strip().endswith(b"hypercrl: interrupted")


SIGNALS_ITSELF = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["NUMBER"]))

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("module", "number"),
    [
        ("hypercrl.base.streams", signal.SIGINT),  # of the command line itself
        ("torch._C", signal.SIGTERM),
        ("mujoco._structs", signal.SIGINT),  # by C++, which makes an ImportError of what is raised
    ],
)
def test_one_amid_an_import_is_one_line(module, number, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SIGNALS_ITSELF)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "hypercrl", "tasks", "push"],
        env=os.environ | {"PYTHONPATH": path, "AT": module, "NUMBER": str(int(number))},
        capture_output=True,
        text=True,
        check=False,
    )
    said = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}[number]
    assert (done.returncode, done.stderr) == (128 + number, f"\nhypercrl: {said}\n")


def test_a_second_one_does_not_wait_for_the_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    again = "import signal\nfor _ in range(2): signal.raise_signal(signal.SIGINT)\nassert False\n"
    (tmp_path / "takes_for_ever.py").write_text(again)
    with pytest.raises(KeyboardInterrupt), termination_interrupts():
        import_module("takes_for_ever")
    time.sleep(0.2)  # the first one does not come once more


def test_one_waits_for_a_long_import(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    long = "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.3)\ndone = True\n"
    (tmp_path / "takes_long.py").write_text(long)

    def imported():
        import_module("takes_long")
        time.sleep(10)

    with pytest.raises(KeyboardInterrupt), termination_interrupts():
        imported()
    assert sys.modules["takes_long"].done


def test_one_that_waits_as_all_is_done_is_not_lost(tmp_path, monkeypatch):
    """Its import was the last thing that the command did."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "is_last.py").write_text("import signal\nsignal.raise_signal(signal.SIGTERM)\n")
    with pytest.raises(Interrupted, match="ended by SIGTERM"), termination_interrupts():
        import_module("is_last")
    time.sleep(0.2)  # nor does it come once more


def test_one_that_another_exception_hides_is_answered(capsys):
    """What OmegaConf does in a `finally` fails where it is interrupted."""

    def broken_off():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'")

    def refused():
        try:
            broken_off()
        except AttributeError as error:
            raise UserError("push.yaml cannot be read") from error

    with pytest.raises(SystemExit) as ended, answered():
        refused()
    assert ended.value.code == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "\nhypercrl: ended by SIGTERM\n"
    with pytest.raises(UserError, match="a mistake"), answered():
        raise UserError("a mistake")
