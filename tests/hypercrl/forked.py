"""Processes of their own that begin at once: forked from one that has imported everything."""

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from hypercrl.cli import main
from hypercrl.training.trainer import Trainer
from hypercrl_envs.blocks import BlockTask

_FORKS = multiprocessing.get_context("forkserver")
# torch imports the second with the first optimiser, in a second and a half.
_FORKS.set_forkserver_preload(["hypercrl.commands.train", "torch._dynamo", "forked"])


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
    """`hypercrl train WORDS`, where a file's size is at most `room` bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    main(["train", *words])


def play_with_little_room(room: int, words: tuple[str, ...]) -> None:
    """`hypercrl play WORDS`, where a file's size is at most `room` bytes."""
    sys.dont_write_bytecode = True  # Python 3.11 keeps a module's that was cut short
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    main(["play", *words])
