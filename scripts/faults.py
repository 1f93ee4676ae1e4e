"""What becomes of small runs that meet faults: a table of faults and outcomes.

Every fault ends in one of five ways. As it should: the run, gone on with if it was ended, comes to
the same result, records and weights as one that met no fault, or it ends with one message that says
what to do. As it should not: work is lost, something is silently different, or there is a
traceback.

    python scripts/faults.py --out docs/results/faults --scale 0.05 --folder /tmp/few
    python scripts/faults.py --out docs/results/faults --jobs 16 --folder /tmp/all
    python scripts/faults.py --out docs/results/faults --folder /tmp/all --kinds "full disk"

A trial is a process of its own, forked from this one, which has imported everything. What has been
tried is in FOLDER/trials.jsonl, which several machines may have written parts of: the table is of
all of it, and a script that was ended goes on.

Full disks are tmpfs in a mount namespace of their own (Linux, as root or with user namespaces). The
lost Ray driver needs Ray (extra ray).
"""

import argparse
import ctypes
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hypercrl.commands.train
from hypercrl.base.errors import UserError
from hypercrl.base.lock import LOCK
from hypercrl.base.strict_json import write_json
from hypercrl.cli import main as command
from hypercrl.config.compose import with_effect
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.runs.checkpoint import load_checkpoint
from hypercrl.training.result import git_revision, machine

SMALL = (
    "preset=smoke",
    "device=cpu",
    "dynamics.hidden=[16]",
    "planner.samples=8",
    "planner.elites=2",
    "planner.horizon=3",
    "protocol.num_tasks=2",
    "protocol.random_steps=16",
    "protocol.planned_steps=12",
    "protocol.update_every=6",
    "protocol.updates=10",
    "protocol.eval_every=6",
    "protocol.final_episodes=1",
    "protocol.heldout_episodes=1",
    "protocol.prediction_horizon=3",
    "protocol.replay_capacity=30",
    "protocol.checkpoint_every=7",
)
WITH_MEMORY = ("memory.width=8", "context.windows=4", "context.burn_in=3", "context.horizon=3")
SAME, MESSAGE, LOST, SILENT, TRACEBACK = OUTCOMES = (
    "same",
    "message",
    "lost",
    "silent",
    "traceback",
)
FLIPS = 100
"""Of a trial."""
SAVE_LIMIT = 2.0
"""Seconds in which a run is to be saved after a signal."""


@dataclass
class Trial:
    """One fault, and how it ended; seconds that a signal took to end the run."""

    fault: str
    where: str
    outcome: str
    said: str = ""
    seconds: float | None = None


class Faulty(gymnasium.Env):
    """A point that fails in step `at`, counted over all episodes."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, fault: str, at: int) -> None:
        self.fault, self.at, self.steps = fault, at, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed, options=options)
        self.x = self.np_random.normal(size=2).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        self.x += np.float32(0.1) * action
        obs = self.x.copy()
        reward = -float(np.abs(self.x).sum())
        if self.steps == self.at:
            if self.fault == "raises":
                raise RuntimeError("the simulator has lost contact")
            if self.fault == "reward":
                reward = np.nan
            else:
                obs[0] = np.nan
        return obs, reward, False, False, {}


gymnasium.register("Faults-v0", lambda **options: Faulty(**options), max_episode_steps=10)


def points(*faults: tuple[str, int]) -> tuple[str, str]:
    """Words for a sequence of points: what fails, and in which step; step 0 never comes."""
    tasks = [
        f"{{task: gym, id: Faults-v0, options: {{fault: {fault}, at: {at}}}}}"
        for fault, at in faults
    ]
    return "env=gymnasium", f"env.tasks=[{', '.join(tasks)}]"


@dataclass
class Reference:
    """A configuration, the run of it that met no fault, and the processor's seconds for that."""

    settings: tuple[str, ...]
    run: Path
    seconds: float

    @property
    def name(self) -> str:
        return " ".join(word for word in self.settings[:2] if not word.startswith("env."))

    def outcome(self, run: Path, log: Path) -> tuple[str, str]:
        """Of a run that has been gone on with to its end, if it could be."""
        said = log.read_text()
        last = said.strip().splitlines()[-1:]
        if "Traceback" in said:
            return TRACEBACK, "".join(last)
        if not (run / "result.json").exists():
            return LOST, "".join(last)
        return (SAME, "") if _essence(run) == _essence(self.run) else (SILENT, "it differs")


def _essence(run: Path) -> tuple[Any, ...]:
    """Result, records and learned state, without timings, such that equality is bit for bit."""
    result = json.loads((run / "result.json").read_text())
    kept = ("scores", "success", "prediction_error", "memory_bytes", "updates", "plans")
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    records = [{k: v for k, v in line.items() if k != "milliseconds"} for line in lines]
    tree = load_checkpoint(run / "checkpoints/latest.safetensors")
    learned = [tree[name] for name in ("position", "method", "learner", "streams", "labels")]
    return {key: result[key] for key in kept}, records, _plain(learned)


def _plain(node: Any) -> Any:
    if isinstance(node, torch.Tensor):
        return str(node.dtype), list(node.shape), node.reshape(-1).view(torch.uint8).tolist()
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    return [_plain(value) for value in node] if isinstance(node, list) else node


def start(words: Sequence[str], log: Path, first: Callable[[], object] = lambda: None) -> int:
    """`hypercrl WORDS` in a fork of this process, which has imported everything; its id."""
    sys.stdout.flush()
    if process := os.fork():
        return process
    code = 1
    try:
        with open(log, "a", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        first()
        command(list(words))
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int) -> int:
    """Exit code of a process, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def begins(run: Path, settings: Sequence[str]) -> list[str]:
    """Words that go on with a run, or begin it if there is nothing of it."""
    if (run / "config.yaml").exists():
        return ["train", f"resume={run}"]
    return ["train", *with_effect("train", [*SMALL, *settings]), f"run_dir={run}"]


def reference(settings: tuple[str, ...], folder: Path) -> Reference:
    """A configuration's run that met no fault: the one in the folder, or it is made now.

    Raises:
        RuntimeError: it does not end well.
    """
    run, log, seconds = folder / "run", folder / "log", folder / "seconds"
    if not seconds.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _, status, used = os.wait4(start(begins(run, settings), log), 0)
        if status:
            raise RuntimeError(log.read_text())
        seconds.write_text(str(used.ru_utime + used.ru_stime))
    return Reference(settings, run, float(seconds.read_text()))


def configurations() -> list[tuple[str, ...]]:
    """One with MuJoCo; every method, and every memory with hnet, on points."""
    world = points(("none", 0), ("nothing", 0))
    every = [(f"method={method}", *world) for method in METHODS]
    memories = [m for m in MEMORIES if m != "none"]
    every += [("method=hnet", f"memory={m}", *world, *WITH_MEMORY) for m in memories]
    return [("method=hnet", "env=push"), *every]


@dataclass
class Place:
    """Where a trial may leave what it likes, and the runs that it is compared with."""

    references: Path
    folder: Path

    def reference(self, number: int) -> Reference:
        """One of all configurations, by turns."""
        every = configurations()
        number %= len(every)
        return reference(every[number], self.references / str(number))

    def damaged(self) -> tuple[Path, bytes]:
        """A path to write a checkpoint to, and the checkpoint."""
        latest = self.reference(0).run / "checkpoints/latest.safetensors"
        return self.folder / "damaged.safetensors", latest.read_bytes()


def comes_to(moment: float, process: int) -> bool:
    """Wait until a process has used so many seconds of the processor; whether it still runs."""
    clock = (~process << 3) | 2  # as clock_getcpuclockid(3) has it
    while not os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        with suppress(OSError):
            if time.clock_gettime(clock) >= moment:
                return True
        time.sleep(0.001)
    return False


def ended(number: signal.Signals, trial: int, place: Place) -> Trial:
    """A run that gets a signal at a random moment, and is gone on with."""
    ref = place.reference(trial)
    moment = random.Random(f"{number.name} {trial}").uniform(0, ref.seconds)
    run, log = place.folder / "run", place.folder / "log"
    while not comes_to(moment, process := start(begins(run, ref.settings), log)):
        wait(process)  # it was quicker than the one without a fault
        shutil.rmtree(run)
        moment *= 0.9
    fault, where = number.name, f"{ref.name}, after {moment:.2f} s"
    os.kill(process, number)
    sent = time.monotonic()
    code = wait(process)
    seconds = time.monotonic() - sent
    if "interrupted; saved" in log.read_text() and code != 128 + number:
        return Trial(fault, where, SILENT, f"exit code {code}")
    if not (run / "result.json").exists():
        wait(start(begins(run, ref.settings), log))
    outcome, said = ref.outcome(run, log)
    if number == signal.SIGKILL or code == 0:
        return Trial(fault, where, outcome, said)
    if seconds > SAVE_LIMIT and outcome == SAME:
        outcome, said = LOST, f"it took {seconds:.1f} s to end"
    return Trial(fault, where, outcome, said, seconds)


def refused(fault: str, where: str, log: Path, code: int, expected: str) -> Trial:
    """A run that should have ended with a message."""
    said = log.read_text()
    last = "".join(said.strip().splitlines()[-1:])
    if "Traceback" in said:
        return Trial(fault, where, TRACEBACK, last)
    good = code == 2 and expected in said
    return Trial(fault, where, MESSAGE if good else SILENT, "" if good else f"{code}: {last}")


def full_disk(trial: int, place: Place, of: int) -> Trial:
    """A disk that fills up, then grows; in a mount namespace of a process of its own."""
    ref = place.reference(0)
    used = sum(p.stat().st_size for p in ref.run.rglob("*") if p.is_file())
    size, answer = round(used * (trial + 0.5) / of), place.folder / "answer.json"
    process = os.fork()
    if not process:
        try:
            outcome = _on_a_small_disk("full disk", size, ref, place.folder)
            answer.write_text(json.dumps(asdict(outcome), allow_nan=False))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    wait(process)
    if answer.exists():
        return Trial(**json.loads(answer.read_text()))
    return Trial("full disk", "", LOST, "no tmpfs could be mounted, or the trial failed")


def _on_a_small_disk(fault: str, size: int, ref: Reference, folder: Path) -> Trial:
    spaces_, namespaces = 0x20000, ctypes.CDLL(None, use_errno=True)  # CLONE_NEWNS
    user, group = os.getuid(), os.getgid()
    if namespaces.unshare(spaces_ if user == 0 else spaces_ | 0x10000000):  # CLONE_NEWUSER
        raise OSError(ctypes.get_errno(), "no namespace")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    disk, log = folder / "mounted", folder / f"{size}.log"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    options = f"size={max(size, 8192)}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
    run, where = disk / "run", f"{ref.name}, {size} bytes"
    code = wait(start(begins(run, ref.settings), log))
    met = refused(fault, where, log, code, "No space left on device")
    if met.outcome != MESSAGE:
        return met
    if left := [p.name for p in run.rglob("*.partial")]:
        return Trial(fault, where, LOST, f"left behind: {left}")
    subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
    log.write_text("")
    wait(start(begins(run, ref.settings), log))
    outcome, said = ref.outcome(run, log)
    return Trial(fault, where, outcome, said)


def cut_short(_: int, place: Place) -> Iterator[Trial]:
    """A checkpoint that is cut short at every kB."""
    path, data = place.damaged()
    for length in range(0, len(data), 1024):
        path.write_bytes(data[:length])
        yield _loaded("cut short", f"at byte {length}", path)


def bit_flips(trial: int, place: Place) -> Iterator[Trial]:
    """A checkpoint with a random bit turned over, again and again."""
    path, data = place.damaged()
    draws = random.Random(trial)
    for _ in range(FLIPS):
        at, bit = draws.randrange(len(data)), draws.randrange(8)
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        path.write_bytes(changed)
        yield _loaded("bit flip", f"bit {bit} of byte {at}", path)


def _loaded(fault: str, where: str, path: Path) -> Trial:
    try:
        load_checkpoint(path)
    except UserError:
        return Trial(fault, where, MESSAGE)
    except Exception as error:
        return Trial(fault, where, TRACEBACK, repr(error))
    return Trial(fault, where, SILENT, "it was loaded")


def latest_gone(fault: str, _: int, place: Place) -> Trial:
    """The last checkpoint deleted, or damaged, under a killed run."""
    ref, run, log = place.reference(0), place.folder / "run", place.folder / "log"
    _kill_at_checkpoint(run, ref, log)
    latest = run / "checkpoints/latest.safetensors"
    if fault == "latest deleted":
        latest.unlink()
    else:
        latest.write_bytes(latest.read_bytes()[:-1])
    wait(start(begins(run, ref.settings), log))
    outcome, said = ref.outcome(run, log)
    if outcome == SAME and "Going on from" not in log.read_text():
        outcome, said = SILENT, "without a notice"
    return Trial(fault, ref.name, outcome, said)


def _kill_at_checkpoint(run: Path, ref: Reference, log: Path) -> None:
    """Begin a run, and kill it once it has two checkpoints."""
    process = start(begins(run, ref.settings), log)
    while not (run / "checkpoints/previous.safetensors").exists():
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    wait(process)


def two_writers(_: int, place: Place) -> Iterator[Trial]:
    """A run that is gone on with beside itself."""
    ref, folder = place.reference(0), place.folder
    run, log, second = folder / "run", folder / "log", folder / "second"
    first = start(begins(run, ref.settings), log)
    while not (run / "checkpoints/latest.safetensors").exists():
        time.sleep(0.01)
    code = wait(start(["train", f"resume={run}"], second))
    yield refused("two writers: the second", ref.name, second, code, f"by process {first} on")
    wait(first)
    yield Trial("two writers: the first", ref.name, *ref.outcome(run, log))


def clock_back(_: int, place: Place) -> Trial:
    """The clock is set back by an hour between a kill and what goes on."""
    ref, run, log = place.reference(0), place.folder / "run", place.folder / "log"
    _kill_at_checkpoint(run, ref, log)
    now = time.time

    def set_back() -> None:
        time.time = lambda: now() - 3600

    wait(start(begins(run, ref.settings), log, set_back))
    outcome, said = ref.outcome(run, log)
    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(tag)]
        if steps != sorted(set(steps)):
            outcome, said = SILENT, f"TensorBoard shows {tag} at {steps}"
    return Trial("clock back", ref.name, outcome, said)


def faulty_world(kind: tuple[str, str], trial: int, place: Place) -> Trial:
    """NaN in the observation or the reward, or an exception, in one of the first steps."""
    (fault, label), at = kind, trial + 1
    run, log = place.folder / "run", place.folder / "log"
    words = ("method=single", "protocol.num_tasks=1", "protocol.planned_steps=60")
    code = wait(start(begins(run, (*points((fault, at)), *words)), log))
    met = refused(label, f"step {at}", log, code, " of an episode")
    latest = run / "checkpoints/latest.safetensors"
    if latest.exists():
        replay = load_checkpoint(latest)["learner"]["replay"]
        if not all(bool(replay[name].isfinite().all()) for name in ("obs", "next_obs")):
            met = Trial(label, f"step {at}", SILENT, "NaN in the checkpoint")
    return met


def _grid(place: Place, *more: str) -> tuple[list[str], Path, Path]:
    """A program that runs a grid of one cell, that of the first reference; the cell, its log."""
    words = [*SMALL, *place.reference(0).settings, "seed=0", f"out={place.folder / 'grid'}"]
    program = [sys.executable, "-m", "hypercrl", "bench", *words, *more]
    return program, place.folder / "grid/cells/push-hnet-0", place.folder / "log"


def _run_until_saved(program: Sequence[str], cell: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a grid; it goes on once its cell has two checkpoints."""
    with open(log, "ab") as file:
        driver = subprocess.Popen(program, stdout=file, stderr=subprocess.STDOUT)
    while not (cell / "checkpoints/previous.safetensors").exists() and driver.poll() is None:
        time.sleep(0.01)
    return driver


def _owner(folder: Path) -> int:
    """The process that writes there."""
    return int((folder / LOCK).read_text().split()[1])


def lost_worker(_: int, place: Place) -> Trial:
    """The process of a cell is killed."""
    program, cell, log = _grid(place, "workers=1")
    driver = _run_until_saved(program, cell, log)
    os.kill(_owner(cell), signal.SIGKILL)
    driver.wait()
    outcome, said = place.reference(0).outcome(cell, log)
    if outcome == SAME and "to be tried again (killed by signal 9)" not in log.read_text():
        outcome, said = SILENT, "without a word"
    return Trial("lost worker", place.reference(0).name, outcome, said)


def lost_driver(fault: str, _: int, place: Place, *more: str) -> Trial:
    """The process that runs a grid is killed, and it is run again at once."""
    program, cell, log = _grid(place, *more)
    _run_until_saved(program, cell, log).kill()
    for _again in range(2):  # a cell that still saves itself is left alone, with a message
        with open(log, "ab") as file:
            code = subprocess.run(program, stdout=file, stderr=file, check=False).returncode
        if code != 2 or "is being written to by process" not in log.read_text():
            break
    outcome, said = place.reference(0).outcome(cell, log)
    return Trial(fault, place.reference(0).name, outcome, said)


def lost_ray_driver(_: int, place: Place) -> Trial:
    """The same on a Ray cluster, which stays."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, environment = f"127.0.0.1:{port}", {**os.environ, "HOME": str(place.folder)}
    words = ("start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false")
    program = [sys.executable, "-m", "ray.scripts.scripts", *words, "--block"]
    with open(place.folder / "ray", "wb") as file:
        head = subprocess.Popen(program, env=environment, stdout=file, stderr=file)
    try:
        while head.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.1)
        time.sleep(5)  # its node joins
        return lost_driver("lost Ray driver", 0, place, "cluster=ray", f"address={address}")
    finally:
        head.terminate()
        head.wait()


Kind = Callable[[int, Place], Trial | Iterator[Trial]]


def kinds(scale: float) -> dict[str, tuple[int, Kind]]:
    """Faults, how often each is tried, and how."""

    def many(full: int) -> int:
        return max(1, round(full * scale))

    worlds = (("nan", "NaN observed"), ("reward", "NaN rewarded"), ("raises", "simulator raises"))
    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return {
        "cut short": (1, cut_short),
        "bit flip": (many(1000 // FLIPS), bit_flips),
        **{f: (1, partial(latest_gone, f)) for f in ("latest deleted", "latest damaged")},
        "two writers": (1, two_writers),
        "clock back": (1, clock_back),
        "lost worker": (1, lost_worker),
        "lost driver": (1, partial(lost_driver, "lost driver")),
        "lost Ray driver": (1, lost_ray_driver),
        **{world[1]: (many(50), partial(faulty_world, world)) for world in worlds},
        "full disk": (many(20), partial(full_disk, of=many(20))),
        **{number.name: (many(len(configurations())), partial(ended, number)) for number in stops},
        "SIGKILL": (many(200), partial(ended, signal.SIGKILL)),
    }


def attempt(order: tuple[str, int, float, Path]) -> tuple[str, int, list[Trial]]:
    """Try one; what goes wrong in the trial itself is lost too, and is said."""
    kind, number, scale, folder = order
    place = Place(folder / "references", folder / f"{kind.replace(' ', '-')}-{number}")
    shutil.rmtree(place.folder, ignore_errors=True)
    place.folder.mkdir(parents=True)
    try:
        met = kinds(scale)[kind][1](number, place)
        found = [met] if isinstance(met, Trial) else list(met)
    except Exception as error:
        found = [Trial(kind, f"trial {number}", LOST, f"the trial failed: {error!r}")]
    if all(trial.outcome in (SAME, MESSAGE) for trial in found):
        shutil.rmtree(place.folder)
    return kind, number, found


def make_reference(order: tuple[int, Path]) -> float:
    """Seconds that one of them took."""
    number, folder = order
    return Place(folder, folder).reference(number).seconds


def told(path: Path) -> dict[tuple[str, int], list[Trial]]:
    """What has been tried, by kind and number."""
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return {(kind, number): [Trial(*trial) for trial in found] for kind, number, found in lines}


def table(found: Sequence[Trial]) -> str:
    """Markdown: a row for each fault, a column for each outcome."""
    head = f"| fault | trials | {' | '.join(OUTCOMES)} | seconds to end, at most |"
    lines = [head, "|---" * (len(OUTCOMES) + 3) + "|"]
    for fault in dict.fromkeys(trial.fault for trial in found):
        of = [trial for trial in found if trial.fault == fault]
        counts = [sum(trial.outcome == outcome for trial in of) for outcome in OUTCOMES]
        seconds = [trial.seconds for trial in of if trial.seconds is not None]
        longest = f"{max(seconds):.2f}" if seconds else ""
        lines.append(f"| {fault} | {len(of)} | {' | '.join(map(str, counts))} | {longest} |")
    return "\n".join(lines) + "\n"


def write(found: Sequence[Trial], about: dict[str, str], out: Path) -> None:
    """`out`.json with every trial that is not among thousands alike, and `out`.md."""
    single = [t for t in found if t.seconds is not None or t.outcome not in (SAME, MESSAGE)]
    rows = {
        fault: {o: sum(t.fault == fault and t.outcome == o for t in found) for o in OUTCOMES}
        for fault in dict.fromkeys(t.fault for t in found)
    }
    write_json(out.with_suffix(".json"), {**about, "rows": rows, "told": list(map(asdict, single))})
    bad = sum(trial.outcome not in (SAME, MESSAGE) for trial in found)
    text = (
        "# Faults and outcomes\n\n"
        "What becomes of a run that is killed, damaged, starved of disk or fed NaN? "
        f"{bad or 'None'} of {len(found)} trials lost anything, went on silently with what was "
        "wrong, or ended with a traceback.\n\n"
        f"`{about['command']}`, commit {about['commit']}, {about['machine']}.\n\n"
        f"{table(found)}\n"
        "same: gone on with, it came to the result, records, weights and random states of a run "
        "without the fault, bit for bit. message: exit code 2 and one message, or a checkpoint "
        f"that is refused. The other three should be 0. Signals come to {len(configurations())} "
        "configurations by turns: every method, and every memory with hnet.\n"
    )
    out.with_suffix(".md").write_text(text, encoding="utf-8")


def main() -> int:
    """Try what is missing yet, and draw the table of all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    parser.add_argument("--folder", type=Path, required=True, help="of references and trials")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of trials")
    parser.add_argument("--jobs", type=int, default=1, help="trials side by side")
    parser.add_argument("--kinds", nargs="*", default=list(kinds(1)), choices=list(kinds(1)))
    given = parser.parse_args()
    for name in ("torch._dynamo", "mujoco", "hypercrl.commands.bench"):
        importlib.import_module(name)  # once, and not in every trial
    # Who starts this in the background, or under nohup, lets runs ignore what they are to meet.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    hypercrl.commands.train.write_report = lambda *_: Path()  # most of a small run's time
    folder, path = given.folder.resolve(), given.folder / "trials.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    done = told(path)
    missing = [
        (kind, number, given.scale, folder)
        for kind, (count, _) in kinds(given.scale).items()
        if kind in given.kinds
        for number in range(count)
        if (kind, number) not in done
    ]
    signalled = any(kind.startswith("SIG") for kind, *_ in missing)
    needed = range(len(configurations()) if signalled else min(1, len(missing)))
    began = time.monotonic()
    with multiprocessing.get_context("fork").Pool(given.jobs) as pool:
        list(pool.imap_unordered(make_reference, [(n, folder / "references") for n in needed]))
        print(f"{len(needed)} references, after {time.monotonic() - began:.0f} s", flush=True)
        for kind, number, found in pool.imap_unordered(attempt, missing):
            done[kind, number] = found
            with open(path, "a", encoding="utf-8") as file:
                rows = [[t.fault, t.where, t.outcome, t.said, t.seconds] for t in found]
                file.write(json.dumps([kind, number, rows], allow_nan=False) + "\n")
            for trial in found:
                if trial.outcome not in (SAME, MESSAGE):
                    print(trial, flush=True)
    print(f"{len(missing)} trials, after {time.monotonic() - began:.0f} s")
    order = list(kinds(1))
    every = [t for key in sorted(done, key=lambda k: (order.index(k[0]), k[1])) for t in done[key]]
    about = {
        "command": "python scripts/faults.py " + " ".join(sys.argv[1:]),
        "commit": git_revision(),
        "machine": machine(torch.device("cpu")),
    }
    print(table(every))
    write(every, about, given.out)
    return int(any(trial.outcome not in (SAME, MESSAGE) for trial in every))


if __name__ == "__main__":
    sys.exit(main())
