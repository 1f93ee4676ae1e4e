"""Processes of their own that begin at once: forked from one that has imported everything."""

import gc
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import IO

import torch
from tiny_runs import EPISODE

import hypercrl.commands.train as command
from hypercrl.cli import main
from hypercrl.training.trainer import Trainer
from hypercrl_envs.blocks import BlockTask
from hypercrl_envs.channel import Channel
from hypercrl_envs.fleet_worker import serve

_FORKS = multiprocessing.get_context("forkserver")
# torch imports the second with the first optimiser, in a second and a half.
_FORKS.set_forkserver_preload(["hypercrl.commands.train", "torch._dynamo", "forked"])
gc.freeze()  # in the process that is forked, too: what is imported is not looked through again


def ended(function: Callable[..., object], *arguments: object) -> tuple[int | None, str]:
    """Exit code and standard error of a process that calls a function of this module."""
    reads, writes = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(
        target=_call, args=(function, arguments, writes, torch.get_num_threads())
    )
    process.start()
    writes.close()
    with open(reads.fileno(), closefd=False, errors="replace") as pipe:
        said = pipe.read()
    process.join()
    reads.close()
    return process.exitcode, said


def _call(function: Callable[..., object], arguments: tuple, said: Connection, threads: int):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(said.fileno(), 2)
    torch.set_num_threads(threads)
    function(*arguments)


class Forked:
    """What is asked of a `subprocess.Popen`."""

    def __init__(self, function: Callable[..., object], *arguments: object):
        self._process = _FORKS.Process(target=function, args=arguments)
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if timeout is not None and self._process.exitcode is None:
            raise subprocess.TimeoutExpired("hypercrl", timeout)
        return self._process.exitcode


class ForkedCell(Forked):
    """A process of `LocalWorkers` that runs `python -m hypercrl WORDS`.

    It writes no page, see the fixture `no_report`, and pushing has as many steps as here.
    """

    def __init__(self, called: Sequence[str], *, stdout: IO[bytes], env: Mapping[str, str], **_):
        assert called[1:3] == ["-m", "hypercrl"]
        cell = (list(called[3:]), str(stdout.name), dict(env), os.getcwd())
        super().__init__(_run_cell, *cell, BlockTask.max_episode_steps)


class ForkedSimulator(Forked):
    """A process of a `SpreadFleet`, in which pushing has as many steps as here."""

    def __init__(self, called: Sequence[str], *, pass_fds: Sequence[int], **_):
        assert called[-2] == "hypercrl_envs.fleet_worker"
        with socket.socket(fileno=os.dup(pass_fds[0])) as theirs:
            super().__init__(_simulate, theirs, BlockTask.max_episode_steps)


def _simulate(theirs: socket.socket, episode: int) -> None:
    BlockTask.max_episode_steps = episode
    torch.set_num_threads(1)
    serve(Channel(theirs.detach()))


def _run_cell(
    words: list[str], log: str, environment: dict[str, str], folder: str, episode: int
) -> None:
    BlockTask.max_episode_steps = episode
    for number, path in ((0, os.devnull), (1, log), (2, log)):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    command.write_report = lambda *_: None
    main(words)


def train_and_die(number: int, step: int, words: tuple[str, ...], episode: int = 60) -> None:
    """`hypercrl train WORDS`, which gets that signal before its environment step `step` + 1.

    Episodes of pushing have `episode` steps.
    """
    BlockTask.max_episode_steps = episode
    steps, act = iter(range(step)), Trainer._act

    def act_or_die(self: Trainer, planned: bool) -> None:
        if next(steps, None) is None:
            os.kill(os.getpid(), number)
        act(self, planned)

    Trainer._act = act_or_die
    main(["train", *words])


def train_with_little_room(room: int, words: tuple[str, ...]) -> None:
    """`hypercrl train WORDS`, where a file's size is at most `room` bytes.

    Episodes are those of the fixture `short_episodes`.
    """
    BlockTask.max_episode_steps = EPISODE
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    main(["train", *words])


def play_with_little_room(room: int, words: tuple[str, ...]) -> None:
    """`hypercrl play WORDS`, where a file's size is at most `room` bytes."""
    sys.dont_write_bytecode = True  # Python 3.11 keeps a module's that was cut short
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    main(["play", *words])
