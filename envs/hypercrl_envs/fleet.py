"""Robots that are stepped side by side, in this process or in several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from hypercrl_envs.channel import Channel
from hypercrl_envs.checked import TaskFault
from hypercrl_envs.sequence import TaskSequence
from hypercrl_envs.task import Task

Call = Callable[[Task], Any]
"""What is done with one robot; what it takes and returns can be pickled, and so can it itself, such
as `operator.methodcaller("step", action)`."""

Results = Callable[[], list[Any]]
"""Waits for calls that have been started; what they returned, in order. To be asked once."""


class Fleet(ABC):
    """Makes robots of any task of a sequence, and calls functions of theirs side by side.

    A robot is known by its number. Calls of one robot are done in the order in which they were
    started; results are the same whichever fleet it belongs to.

    Args:
        sequence: the tasks.

    Attributes:
        width: robots that are really stepped at the same time.

    Example:
        >>> robots = fleet.make(task=0, count=3)
        >>> results = fleet.start(robots, [methodcaller("step", action)] * 3)
        >>> [(obs, reward, terminated, truncated, info), ...] = results()
    """

    width: int = 1

    def __init__(self, sequence: TaskSequence) -> None:
        self.sequence = sequence
        self._kinds: dict[int, Task] = {}

    def task(self, index: int) -> Task:
        """One of task `index` (from 0) that is no robot of the fleet: for its functions."""
        if index not in self._kinds:
            self._kinds[index] = self.sequence.make(index)
        return self._kinds[index]

    def forget(self, index: int) -> None:
        """Close what `task` gave, as nothing more is asked of it for now."""
        if index in self._kinds:
            self._kinds.pop(index).close()

    @abstractmethod
    def make(self, task: int, count: int) -> list[int]:
        """So many new robots in task `task` (from 0).

        Raises:
            TaskFault: they cannot be made.
        """

    @abstractmethod
    def start(self, robots: Sequence[int], calls: Sequence[Call]) -> Results:
        """Begin a call of each of these robots.

        Raises:
            TaskFault: now or when the results are asked for: a call failed in the simulator.
        """

    @abstractmethod
    def dismiss(self, robots: Sequence[int]) -> None:
        """Close these robots."""

    def close(self) -> None:
        """Close all that has been made."""
        for index in list(self._kinds):
            self.forget(index)


class LocalFleet(Fleet):
    """Robots of this process, one after the other.

    Attributes:
        tasks: each robot's, by its number.
    """

    def __init__(self, sequence: TaskSequence) -> None:
        super().__init__(sequence)
        self.tasks: dict[int, Task] = {}
        self._made = 0

    def make(self, task: int, count: int) -> list[int]:
        robots = list(range(self._made, self._made + count))
        self._made += count
        for robot in robots:
            self.tasks[robot] = self.sequence.make(task)
        return robots

    def start(self, robots: Sequence[int], calls: Sequence[Call]) -> Results:
        results = [call(self.tasks[robot]) for robot, call in zip(robots, calls, strict=True)]
        return lambda: results

    def dismiss(self, robots: Sequence[int]) -> None:
        for robot in robots:
            self.tasks.pop(robot).close()

    def close(self) -> None:
        self.dismiss(list(self.tasks))
        super().close()


class SpreadFleet(Fleet):
    """Robots dealt round several processes, which are started here and end with this one.

    Their own processes rather than those of `multiprocessing`: these would import the user's main
    module once more, and run it where it is not guarded.

    Args:
        sequence: the tasks.
        processes: how many.
    """

    def __init__(self, sequence: TaskSequence, processes: int) -> None:
        super().__init__(sequence)
        self.width = processes
        self._workers = [_Worker(sequence, number > 0) for number in range(processes)]
        self._made = 0

    def make(self, task: int, count: int) -> list[int]:
        robots = list(range(self._made, self._made + count))
        self._made += count
        self._ask("make", dict.fromkeys(robots, task))()
        return robots

    def start(self, robots: Sequence[int], calls: Sequence[Call]) -> Results:
        return self._ask("call", dict(zip(robots, calls, strict=True)))

    def dismiss(self, robots: Sequence[int]) -> None:
        self._ask("close", dict.fromkeys(robots))()

    def close(self) -> None:
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.wait()
        self._workers = []
        super().close()

    def _ask(self, verb: str, payload: dict[int, Any]) -> Results:
        """Send each process its share; the answers come in the order of `payload`."""
        shares: dict[int, dict[int, Any]] = {}
        for robot, what in payload.items():
            shares.setdefault(robot % self.width, {})[robot] = what
        tickets = [
            (self._workers[number], self._workers[number].send(verb, share))
            for number, share in shares.items()
        ]

        def results() -> list[Any]:
            answers: dict[int, Any] = {}
            for worker, ticket in tickets:
                answers |= worker.answer(ticket)
            return [answers[robot] for robot in payload]

        return results


class _Worker:
    """One process, `hypercrl_envs.fleet_worker`, and the answers of it that nobody has taken."""

    def __init__(self, sequence: TaskSequence, quiet: bool) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            hushed = ["-W", "ignore"] if quiet else []
            module = ["-m", "hypercrl_envs.fleet_worker", str(number)]
            # Not on the terminal: Ctrl-C is for the process that knows what to save.
            self._process = subprocess.Popen(
                [sys.executable, "-P", *hushed, *module],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self._channel = Channel(ours.detach())
        self._sent = self._received = 0
        self._answers: dict[int, Any] = {}
        self._send(sequence)

    def send(self, verb: str, share: dict[int, Any]) -> int:
        """The number of the message, to ask for its answer with."""
        self._send((verb, share))
        self._sent += 1
        return self._sent

    def answer(self, number: int) -> dict[int, Any]:
        """By robot, what was answered to this message.

        Raises:
            TaskFault: the process has ended.
            Exception: what the call raised there.
        """
        while self._received < number:
            self._received += 1
            try:
                self._answers[self._received] = self._channel.receive()
            except (EOFError, OSError) as error:
                raise self._ended() from error
        answer = self._answers.pop(number)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def hang_up(self) -> None:
        """Let the process end."""
        self._channel.close()

    def wait(self) -> None:
        """Until it has."""
        self._process.wait()

    def _send(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> TaskFault:
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            code = None
        return TaskFault(f"A process that steps robots has ended (exit code {code}).")
