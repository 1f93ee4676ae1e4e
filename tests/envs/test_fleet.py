"""Robots in other processes do what robots in this one do, and leave nobody behind."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from operator import methodcaller
from pathlib import Path

import numpy as np
import pytest

from hypercrl_envs import LocalFleet, SpreadFleet, Task, TaskFault, TaskSequence

SPECS = [
    {"task": "push", "densities": [[100, 1000], 500]},
    {"task": "push", "densities": [500, 100]},
]


def sequence():
    return TaskSequence(SPECS, "two")


@pytest.fixture(scope="module")
def spread():
    with closing(SpreadFleet(sequence(), 2)) as fleet:
        yield fleet


def trajectory(fleet):
    """Three robots of one task and two of another, whose calls are under way at the same time."""
    rng = np.random.default_rng(0)
    groups = [fleet.make(0, 3), fleet.make(1, 2)]
    seen = []
    for robots in groups:
        seeds = [methodcaller("reset", seed=7 + number) for number in range(len(robots))]
        seen += [obs for obs, _ in fleet.start(robots, seeds)()]
    for _ in range(4):
        started = []
        for robots in groups:
            actions = rng.uniform(-1, 1, (len(robots), 2)).astype(np.float32)
            started.append(fleet.step(robots[::-1], actions))
        for results in reversed(started):  # whichever is asked for first
            for obs, reward, terminated, truncated, info in results():
                seen.append(np.append(obs, [reward, terminated, truncated, len(info)]))
    states = fleet.start(groups[0], [methodcaller("get_state")] * 3)()
    fleet.dismiss(groups[0] + groups[1])
    return seen, states


def test_the_process_makes_no_difference(spread):
    with closing(LocalFleet(sequence())) as local:
        (one, states), (other, far) = trajectory(local), trajectory(spread)
        assert all(map(np.array_equal, one, other))
        assert len({obs.tobytes() for obs in one}) == len(one)
        assert [state["np_random"] for state in states] == [state["np_random"] for state in far]
        # A state from there goes on here.
        (robot,), (there,) = local.make(0, 1), spread.make(0, 1)
        pushes = [methodcaller("step", np.array([0.5, -0.5], np.float32))]
        ends = []
        for fleet, own in ((local, [robot]), (spread, [there])):
            fleet.start(own, [methodcaller("set_state", far[1])])()
            ends.append(fleet.start(own, pushes)()[0][0])
        assert np.array_equal(*ends)


def test_robots_that_share_a_process_share_a_message(spread):
    robots = spread.make(0, 3)  # in two processes
    spread.start(robots, [methodcaller("reset", seed=3)] * 3)()
    messages, sent = spread.messages, spread.bytes
    spread.step(robots, np.zeros((3, 2), np.float32))()
    assert spread.messages - messages == 4
    assert spread.bytes - sent > 3 * (2 + 10) * 4
    spread.dismiss(robots)


def test_steps_tell_of_success_where_an_episode_ends_alone(spread):
    actions = np.random.default_rng(0).uniform(-1, 1, (60, 3, 2)).astype(np.float32)
    told = []
    with closing(LocalFleet(sequence())) as local:
        for fleet in (local, spread):
            robots = fleet.make(1, 3)
            fleet.start(robots, [methodcaller("reset", seed=seed) for seed in range(3)])()
            fleet.step(robots[:1], actions[0, :1])()  # so that it ends one step before the others
            told.append([fleet.step(robots, action)() for action in actions[:59]])
            last = fleet.step(robots[1:], actions[59, 1:])()
            assert [len(info) for *_, info in last] == [2, 2]
            fleet.dismiss(robots)
    task = sequence().make(1)
    with pytest.raises(RuntimeError, match=r"before info\(\)"):
        task.info()
    task.reset(seed=0)
    stepped = [task.step(actions[0, 0]), *(task.step(action[0]) for action in actions[:59])]
    for rows, others in zip(*told, strict=True):
        for (obs, *rest), (other, *far) in zip(rows, others, strict=True):
            assert np.array_equal(obs, other)
            assert rest == far
    for alone, rows in zip(stepped[1:], told[0], strict=True):
        over = alone[2] or alone[3]
        assert rows[0][1:] == (*alone[1:4], alone[4] if over else {})
    assert told[0][-1][0][-1] == stepped[-1][-1] != {}
    assert told[0][-1][1][-1] == {}


def driven(fleet):
    """Where a robot of every task of the sequence comes to in six steps."""
    rng, seen = np.random.default_rng(1), []
    for index in range(len(fleet.sequence)):
        (robot,) = fleet.make(index, 1)
        seen.append(fleet.start([robot], [methodcaller("reset", seed=3)])()[0][0])
        for action in rng.uniform(-1, 1, (6, fleet.sequence.action_size)).astype(np.float32):
            seen.append(fleet.start([robot], [methodcaller("step", action)])()[0][0])
        fleet.dismiss([robot])
    return seen


def test_it_makes_none_for_any_task(every_kind):
    every = TaskSequence(every_kind, "every kind", pad=True)
    with closing(LocalFleet(every)) as local, closing(SpreadFleet(every, 1)) as others:
        assert all(map(np.array_equal, driven(local), driven(others)))


def moved_by(task: Task, shift: float) -> float:
    return task.max_episode_steps + shift


def failing(task: Task) -> None:
    raise TaskFault(f"{task.caption}: the motor burned out")


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def odd(task: Task) -> None:
    raise Odd(1, 2)  # which cannot be pickled


@pytest.fixture
def here(monkeypatch):
    """Other processes find this file's functions as pytest has imported it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def test_calls_come_back_in_order_and_failures_as_what_they_were(here):
    with closing(SpreadFleet(sequence(), 2)) as fleet:
        robots = fleet.make(0, 3)
        shifts = [partial(moved_by, shift=number) for number in range(3)]
        base = fleet.task(0).max_episode_steps
        assert fleet.start(robots[::-1], shifts)() == [base, base + 1, base + 2]
        with pytest.raises(TaskFault, match=r"push .*: the motor burned out"):
            fleet.start(robots, [failing] * 3)()
        with pytest.raises(TaskFault, match=r"raised Odd: 1 and 2 \(test_fleet.py, line"):
            fleet.start(robots[:1], [odd])()
        nowhere = methodcaller("step", np.full(2, np.nan, np.float32))
        fleet.start(robots[:1], [methodcaller("reset", seed=0)])()
        with pytest.raises(ValueError, match="NaN"):
            fleet.start(robots[:1], [nowhere])()
        # It is as good as before.
        assert fleet.start(robots[:1], shifts[:1])() == [base]


def test_more_calls_may_be_under_way_than_there_is_room_for(spread):
    (robot,) = spread.make(0, 1)
    step = [methodcaller("step", np.array([0.5, -0.5], np.float32))]
    spread.start([robot], [methodcaller("reset", seed=3)])()
    under_way = [spread.start([robot], step) for _ in range(40)]
    (other,) = spread.make(0, 1)
    spread.start([other], [methodcaller("reset", seed=3)])()
    for results in under_way:
        assert np.array_equal(results()[0][0], spread.start([other], step)()[0][0])
    spread.dismiss([robot, other])


def pid(task: Task) -> int:
    return os.getpid()


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").read_text().split()[2] == "Z"


def wait_for(processes):
    end = time.monotonic() + 20
    while not all(map(gone, processes)):
        assert time.monotonic() < end, "a process is left behind"
        time.sleep(0.05)


def test_a_process_that_is_killed_is_a_fault_and_close_leaves_none(here):
    fleet = SpreadFleet(sequence(), 2)
    robots = fleet.make(0, 2)
    processes = fleet.start(robots, [pid] * 2)()
    assert len({*processes, os.getpid()}) == 3
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(processes[0], number)
    assert fleet.start(robots, [pid] * 2)() == processes, "who trains decides when to end"
    os.kill(processes[0], signal.SIGKILL)
    with pytest.raises(TaskFault, match=r"has ended \(exit code -9\)"):
        fleet.start(robots, [pid] * 2)()
    fleet.close()
    wait_for(processes)


SCRIPT = """
import os, signal
from hypercrl_envs import SpreadFleet, TaskSequence
import test_fleet
fleet = SpreadFleet(TaskSequence(test_fleet.SPECS, "two"), 2)
print(*fleet.start(fleet.make(0, 2), [test_fleet.pid] * 2)(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_they_end_with_who_started_them_and_need_no_guarded_main(tmp_path):
    (tmp_path / "mine.py").write_text(SCRIPT)
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    told = subprocess.run(
        [sys.executable, tmp_path / "mine.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=60,
    )
    assert told.returncode == -signal.SIGKILL, told.stderr
    processes = [int(word) for word in told.stdout.split()]
    assert len(processes) == 2
    wait_for(processes)
