"""Robots that are stepped side by side, in this process or in several."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hypercrl_envs.channel import Channel
from hypercrl_envs.checked import TaskFault
from hypercrl_envs.closing import close
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
        >>> obs = [obs for obs, _ in fleet.start(robots, [methodcaller("reset", seed=0)] * 3)()]
        >>> results = fleet.step(robots, actions)
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
            close(self._kinds.pop(index))

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
    def step(self, robots: Sequence[int], actions: np.ndarray) -> Results:
        """Begin a control step of each of these robots, whose observations have one size.

        Args:
            actions: [N, A].

        Returns:
            Waits for (obs, reward, terminated, truncated, info) of each, as of `Task.step`, but
            with an empty info unless the episode has ended.

        Raises:
            TaskFault: see `start`.
        """

    @abstractmethod
    def dismiss(self, robots: Sequence[int]) -> None:
        """Close these robots.

        Raises:
            TaskFault: the `close` of one raised; all are closed.
        """

    def close(self) -> None:
        """Close all that has been made.

        Raises:
            TaskFault: see `dismiss`.
        """
        kinds, self._kinds = self._kinds, {}
        close(*kinds.values())


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

    def step(self, robots: Sequence[int], actions: np.ndarray) -> Results:
        tasks = [self.tasks[robot] for robot in robots]
        results = [*zip(*step_together(tasks, actions), strict=True)]
        return lambda: results

    def dismiss(self, robots: Sequence[int]) -> None:
        close(*[self.tasks.pop(robot) for robot in robots])

    def close(self) -> None:
        robots, kinds = self.tasks, self._kinds
        self.tasks, self._kinds = {}, {}
        close(*robots.values(), *kinds.values())


class SpreadFleet(Fleet):
    """Robots dealt round several processes, which are started here and end with this one.

    Their own processes rather than those of `multiprocessing`: these would import the user's main
    module once more, and run it where it is not guarded.

    Args:
        sequence: the tasks.
        processes: how many.

    Attributes:
        messages, bytes: that went between this process and the others, in both directions.
    """

    def __init__(self, sequence: TaskSequence, processes: int) -> None:
        super().__init__(sequence)
        self.width = processes
        self._workers = [_Worker(sequence, number > 0) for number in range(processes)]
        self._made = 0

    @property
    def messages(self) -> int:
        return sum(worker.channel.messages for worker in self._workers)

    @property
    def bytes(self) -> int:
        return sum(worker.channel.bytes for worker in self._workers)

    def make(self, task: int, count: int) -> list[int]:
        robots = list(range(self._made, self._made + count))
        self._made += count
        self._ask("make", robots, lambda places: [task] * len(places))()
        return robots

    def start(self, robots: Sequence[int], calls: Sequence[Call]) -> Results:
        return self._ask("call", robots, lambda places: [calls[place] for place in places])

    def step(self, robots: Sequence[int], actions: np.ndarray) -> Results:
        actions = np.asarray(actions, np.float32)
        return self._ask("step", robots, lambda places: actions[places].tobytes())

    def dismiss(self, robots: Sequence[int]) -> None:
        self._ask("close", robots, lambda places: [None] * len(places))()

    def close(self) -> None:
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.wait()
        self._workers = []
        super().close()

    def _ask(self, verb: str, robots: Sequence[int], share: Callable[[list[int]], Any]) -> Results:
        """Send each process its share, by places among the robots; answers come in their order."""
        shares: dict[int, list[int]] = {}
        for place, robot in enumerate(robots):
            shares.setdefault(robot % self.width, []).append(place)
        asked: list[tuple[_Worker, list[int], int]] = []
        for number, places in shares.items():
            worker, own = self._workers[number], [robots[place] for place in places]
            asked.append((worker, places, worker.send(verb, own, share(places))))

        def results() -> list[Any]:
            found: list[Any] = [None] * len(robots)
            for worker, places, ticket in asked:
                answer = worker.answer(ticket)
                rows = _stepped(answer, len(places)) if verb == "step" else answer
                for place, row in zip(places, rows, strict=True):
                    found[place] = row
            return found

        return results


def step_together(tasks: Sequence[Task], actions: np.ndarray) -> tuple[Any, ...]:
    """A control step of each of these robots; actions [N, A].

    Returns:
        obs [N, O] and, each of length N: rewards, terminated, truncated, infos.
    """
    moves = [task.move(action) for task, action in zip(tasks, actions, strict=True)]
    obs, *rest = zip(*moves, strict=True)
    over = [move.terminated or move.truncated for move in moves]
    infos = [task.info() if ended else {} for task, ended in zip(tasks, over, strict=True)]
    return np.stack(obs), *rest, infos


def _stepped(answer: tuple[Any, ...], count: int) -> Iterator[tuple[Any, ...]]:
    """What each of so many robots that share a process came to."""
    obs, *rest = answer
    return zip(np.frombuffer(obs, np.float32).reshape(count, -1), *rest, strict=True)


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
        self.channel = Channel(ours.detach())
        self._sent = self._received = 0
        self._answers: dict[int, Any] = {}
        self._send(sequence)

    def send(self, verb: str, robots: Sequence[int], share: Any) -> int:
        """The number of the message, to ask for its answer with."""
        self._send((verb, robots, share))
        self._sent += 1
        return self._sent

    def answer(self, number: int) -> Any:
        """What was answered to this message.

        Raises:
            TaskFault: the process has ended.
            Exception: what the call raised there.
        """
        while self._received < number:
            self._received += 1
            try:
                self._answers[self._received] = self.channel.receive()
            except (EOFError, OSError) as error:
                raise self._ended() from error
        answer = self._answers.pop(number)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def hang_up(self) -> None:
        """Let the process end."""
        self.channel.close()

    def wait(self) -> None:
        """Until it has."""
        self._process.wait()

    def _send(self, message: Any) -> None:
        try:
            self.channel.send(message)
        except OSError as error:
            raise self._ended() from error

    def _ended(self) -> TaskFault:
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            code = None
        return TaskFault(f"A process that steps robots has ended (exit code {code}).")
