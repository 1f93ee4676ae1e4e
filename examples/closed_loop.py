"""A 20 Hz control loop over a local socket: the robot runs in a process of its own and never waits.

    python examples/closed_loop.py RUN [TASK] [STEPS]

At every tick the robot executes the action for what it observed at the last one, and sends where
that led. Where the action has not come yet, a deadline was missed, and it repeats the one before.
"""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

import hypercrl

RATE = 20  # Hz
PATIENCE = 60  # seconds until the other side is given up


def control(run: str, task: int, steps: int) -> dict[str, Any]:
    """Close the loop for so many steps; returns the robot's last report."""
    agent = hypercrl.load(run, task=task)
    reports: SimpleQueue[dict[str, Any]] = SimpleQueue()
    before: list[list[float]] = []

    def take_in(report: dict[str, Any]) -> None:
        """Learn from every step, in a thread, while the next one is planned in another."""
        if report["begins"]:
            agent.reset()
        else:
            agent.observe(before.pop(), report["executed"], report["obs"])
        before[:] = [report["obs"]]
        reports.put(report)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        arguments = (server.getsockname(), run, task, steps)
        get_context("spawn").Process(target=robot, args=arguments, daemon=True).start()
        connection, _ = server.accept()
    with listening(connection, take_in):
        report = reports.get(timeout=PATIENCE)
        agent.warm_up(report["obs"])  # the robot's clock begins with the first action
        while report["step"] < steps:
            action = agent.act(report["obs"], deadline=0.8 / RATE)
            send(connection, {"step": report["step"], "action": action.tolist()})
            report = reports.get(timeout=PATIENCE)
            while not reports.empty():  # if late: what counts is where the robot is now
                report = reports.get()
    return report


def robot(address: tuple[str, int], run: str, task: int, steps: int) -> None:
    """A simulated robot that keeps to its own clock."""
    env = hypercrl.load(run, task=task).make_env()
    obs, _ = env.reset(seed=0)
    report = {"step": 0, "obs": obs.tolist(), "begins": True, "missed": 0, "return": 0.0}
    answers: SimpleQueue[dict[str, Any]] = SimpleQueue()
    connection = socket.create_connection(address)
    with listening(connection, answers.put):
        send(connection, report)
        answer = answers.get(timeout=PATIENCE)
        tick = time.perf_counter()
        for step in range(steps):
            tick += 1 / RATE
            time.sleep(max(0.0, tick - time.perf_counter()))
            while not answers.empty():
                answer = answers.get()
            report["missed"] += answer["step"] < step
            obs, reward, terminated, truncated, _ = env.step(np.array(answer["action"], np.float32))
            if over := terminated or truncated:
                obs, _ = env.reset()
            report |= {"step": step + 1, "obs": obs.tolist(), "begins": over}
            report |= {"executed": answer["action"], "return": report["return"] + float(reward)}
            send(connection, report)


@contextmanager
def listening(
    connection: socket.socket, take_in: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """Hand on every message, in a thread, until both sides have said all that they had to."""
    with connection, connection.makefile("r") as lines:
        thread = Thread(target=lambda: [take_in(json.loads(line)) for line in lines])
        thread.start()
        try:
            yield
        finally:
            with suppress(OSError):  # the other side may be gone
                connection.shutdown(socket.SHUT_WR)
            thread.join()


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """One message is one line of JSON."""
    connection.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    given = sys.argv[1:]
    last = control(given[0], *map(int, given[1:2] or [1]), *map(int, given[2:3] or [100]))
    print(
        f"{last['step']} steps at {RATE} Hz: {last['missed']} deadlines missed, "
        f"return {last['return']:.2f}"
    )
