"""A process of a `SpreadFleet`: `python -m hypercrl_envs.fleet_worker DESCRIPTOR`.

It is told the sequence of tasks, and then answers every message, (verb, robots, what to do with
each), with what came of it in their order, or with the exception that was raised. It ends when the
other side does.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from hypercrl_envs.channel import Channel
from hypercrl_envs.checked import TaskFault, told
from hypercrl_envs.closing import close
from hypercrl_envs.fleet import step_together
from hypercrl_envs.sequence import TaskSequence
from hypercrl_envs.task import Task


def serve(channel: Channel) -> None:
    """Answer until the channel ends."""
    sequence: TaskSequence = channel.receive()
    tasks: dict[int, Task] = {}
    while True:
        try:
            verb, robots, share = channel.receive()
        except (EOFError, OSError):
            break
        try:
            answer: Any = _answer(verb, robots, share, sequence, tasks)
        except (Exception, SystemExit) as error:
            answer = _sendable(error)
        try:
            channel.send(answer)
        except OSError:
            break
    try:
        close(*tasks.values())
    except TaskFault as fault:  # nobody waits for an answer any more
        warnings.warn(str(fault), stacklevel=1)


def _answer(
    verb: str, robots: Sequence[int], share: Any, sequence: TaskSequence, tasks: dict[int, Task]
) -> Any:
    if verb == "step":
        # As bytes, which are packed and unpacked in a fraction of the time of arrays.
        actions = np.frombuffer(share, np.float32).reshape(len(robots), -1)
        obs, *rest = step_together([tasks[robot] for robot in robots], actions)
        return obs.tobytes(), *rest
    if verb == "close":
        close(*(tasks.pop(robot) for robot in robots))
        return [None] * len(robots)
    answers = []
    for robot, what in zip(robots, share, strict=True):
        if verb == "call":
            answers.append(what(tasks[robot]))
            continue
        tasks[robot] = sequence.make(what)
        answers.append(None)
    return answers


def _sendable(error: BaseException) -> BaseException:
    """The error itself, or what it says."""
    if not isinstance(error, SystemExit):
        with suppress(Exception):  # pickling calls whatever the error's class defines
            pickle.loads(pickle.dumps(error))
            return error
    return TaskFault(f"A simulator {told(error)}.")


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the other side decides when this one ends
    torch.set_num_threads(1)
    serve(Channel(int(sys.argv[1])))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # torch takes half a second to go, and there is nothing that it could save
