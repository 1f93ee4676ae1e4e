"""A process of a `SpreadFleet`: `python -m hypercrl_envs.fleet_worker DESCRIPTOR`.

It is told the sequence of tasks, and then answers every message, (verb, by robot what to do), with
what came of it by robot, or with the exception that was raised. It ends when the other side does.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from contextlib import suppress
from typing import Any

import torch

from hypercrl_envs.channel import Channel
from hypercrl_envs.checked import TaskFault, told
from hypercrl_envs.sequence import TaskSequence
from hypercrl_envs.task import Task


def serve(channel: Channel) -> None:
    """Answer until the channel ends."""
    sequence: TaskSequence = channel.receive()
    tasks: dict[int, Task] = {}
    while True:
        try:
            verb, share = channel.receive()
        except (EOFError, OSError):
            break
        try:
            answer: Any = _answer(verb, share, sequence, tasks)
        except (Exception, SystemExit) as error:
            answer = _sendable(error)
        try:
            channel.send(answer)
        except OSError:
            break
    for task in tasks.values():
        task.close()


def _answer(
    verb: str, share: dict[int, Any], sequence: TaskSequence, tasks: dict[int, Task]
) -> dict[int, Any]:
    if verb == "call":
        return {robot: call(tasks[robot]) for robot, call in share.items()}
    for robot, what in share.items():
        if verb == "make":
            tasks[robot] = sequence.make(what)
        else:
            tasks.pop(robot).close()
    return dict.fromkeys(share)


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
