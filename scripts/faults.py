"""What becomes of small runs that meet faults: a table of faults and outcomes.

Every fault ends in one of five ways. As it should: the run, gone on with if it was ended, comes to
the same result, records and weights as one that met no fault, or it ends with one message that says
what to do. As it should not: work is lost, something is silently different, or there is a
traceback.

    python scripts/faults.py --out docs/results/faults                  # minutes on two cores
    python scripts/faults.py --out FOLDER --configurations 40 --kills 200 --signals 60 --fills 20 \\
        --steps 50                                                      # hours

Full disks are tmpfs in a mount namespace of their own (Linux, as root or with user namespaces).
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import hypercrl.commands.train
from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import write_json
from hypercrl.cli import main
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
    "protocol.random_steps=20",
    "protocol.planned_steps=20",
    "protocol.update_every=10",
    "protocol.updates=20",
    "protocol.final_episodes=1",
    "protocol.replay_capacity=30",
    "protocol.checkpoint_every=7",
)
WITH_MEMORY = ("memory.width=8", "context.windows=4", "context.burn_in=4", "context.horizon=4")
SAME, MESSAGE, LOST, SILENT, TRACEBACK = OUTCOMES = (
    "same",
    "message",
    "lost",
    "silent",
    "traceback",
)
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
        if self.steps == self.at:
            if self.fault == "raises":
                raise RuntimeError("the simulator has lost contact")
            obs[0] = np.nan
        return obs, -float(np.abs(self.x).sum()), False, False, {}


gymnasium.register("Faults-v0", lambda **options: Faulty(**options), max_episode_steps=30)


@dataclass
class Reference:
    """A configuration, the run of it that met no fault, and how long that took."""

    settings: tuple[str, ...]
    run: Path
    seconds: float

    @property
    def name(self) -> str:
        return " ".join(self.settings[:2])

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
        main(list(words))
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
    return ["train", *SMALL, *settings, f"run_dir={run}"]


def reference(settings: tuple[str, ...], folder: Path) -> Reference:
    """Run a configuration without a fault.

    Raises:
        RuntimeError: it does not end well.
    """
    run, log = folder / "run", folder / "log"
    folder.mkdir(parents=True)
    started = time.monotonic()
    if wait(start(begins(run, settings), log)):
        raise RuntimeError(log.read_text())
    return Reference(settings, run, time.monotonic() - started)


def ended(fault: str, ref: Reference, folder: Path, number: int, moment: float) -> Trial:
    """A run that gets a signal at a moment, and is gone on with."""
    run, log = folder / "run", folder / "log"
    folder.mkdir()
    where = f"{ref.name}, after {moment:.2f} s"
    process = start(begins(run, ref.settings), log)
    time.sleep(moment)
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


def signals(
    fault: str, number: int, count: int, references: list[Reference], folder: Path
) -> Iterator[Trial]:
    """A signal at random moments."""
    draws = random.Random(fault)
    for trial in range(count):
        ref = references[trial % len(references)]
        moment = draws.uniform(0, ref.seconds)
        yield ended(fault, ref, folder / f"{number}-{trial}", number, moment)


def refused(fault: str, where: str, log: Path, code: int, expected: str) -> Trial:
    """A run that should have ended with a message."""
    said = log.read_text()
    last = "".join(said.strip().splitlines()[-1:])
    if "Traceback" in said:
        return Trial(fault, where, TRACEBACK, last)
    good = code == 2 and expected in said
    return Trial(fault, where, MESSAGE if good else SILENT, "" if good else f"{code}: {last}")


def full_disks(count: int, ref: Reference, folder: Path) -> Iterator[Trial]:
    """A disk that fills up, then grows; each in a mount namespace of a process of its own."""
    fault, used = "full disk", sum(p.stat().st_size for p in ref.run.rglob("*") if p.is_file())
    folder = folder / "disk"
    folder.mkdir()
    for trial in range(count):
        size = round(used * (trial + 0.5) / count)
        answer = folder / f"{trial}.json"
        process = os.fork()
        if not process:
            try:
                outcome = _on_a_small_disk(fault, size, ref, folder)
                answer.write_text(json.dumps(asdict(outcome), allow_nan=False))
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        wait(process)
        if answer.exists():
            yield Trial(**json.loads(answer.read_text()))
        else:
            yield Trial(fault, "", LOST, "no tmpfs could be mounted, or the trial failed")


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
    met = refused(fault, where, log, code, "cannot be written to: No space left on device")
    if met.outcome != MESSAGE:
        return met
    if left := [p.name for p in run.rglob("*.partial")]:
        return Trial(fault, where, LOST, f"left behind: {left}")
    subprocess.run(["mount", "-o", "remount,size=256m", str(disk)], check=True)
    log.write_text("")
    wait(start(begins(run, ref.settings), log))
    outcome, said = ref.outcome(run, log)
    return Trial(fault, where, outcome, said)


def damaged(flips: int, ref: Reference, folder: Path) -> Iterator[Trial]:
    """Checkpoints that are cut short at every kB, and with random bits turned over."""
    path = folder / "damaged.safetensors"
    data = (ref.run / "checkpoints/latest.safetensors").read_bytes()
    for length in range(0, len(data), 1024):
        path.write_bytes(data[:length])
        yield _loaded("cut short", f"at byte {length}", path)
    draws = random.Random(0)
    for _ in range(flips):
        place, bit = draws.randrange(len(data)), draws.randrange(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        yield _loaded("bit flip", f"bit {bit} of byte {place}", path)


def _loaded(fault: str, where: str, path: Path) -> Trial:
    try:
        load_checkpoint(path)
    except UserError:
        return Trial(fault, where, MESSAGE)
    except Exception as error:
        return Trial(fault, where, TRACEBACK, repr(error))
    return Trial(fault, where, SILENT, "it was loaded")


def latest_gone(ref: Reference, folder: Path) -> Iterator[Trial]:
    """The last checkpoint deleted, or damaged, under a killed run."""
    for fault in ("latest deleted", "latest damaged"):
        place = folder / fault.replace(" ", "-")
        place.mkdir()
        run, log = place / "run", place / "log"
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
        yield Trial(fault, ref.name, outcome, said)


def _kill_at_checkpoint(run: Path, ref: Reference, log: Path) -> None:
    """Begin a run, and kill it once it has two checkpoints."""
    process = start(begins(run, ref.settings), log)
    while not (run / "checkpoints/previous.safetensors").exists():
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    wait(process)


def two_writers(ref: Reference, folder: Path) -> Iterator[Trial]:
    """A run that is gone on with beside itself."""
    folder = folder / "two"
    folder.mkdir()
    run, log, second = folder / "run", folder / "log", folder / "second"
    first = start(begins(run, ref.settings), log)
    while not (run / "checkpoints/latest.safetensors").exists():
        time.sleep(0.01)
    code = wait(start(["train", f"resume={run}"], second))
    yield refused("two writers: the second", ref.name, second, code, f"by process {first} on")
    wait(first)
    yield Trial("two writers: the first", ref.name, *ref.outcome(run, log))


def clock_back(ref: Reference, folder: Path) -> Iterator[Trial]:
    """The clock is set back by an hour between a kill and what goes on."""
    folder = folder / "clock"
    folder.mkdir()
    run, log = folder / "run", folder / "log"
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
    yield Trial("clock back", ref.name, outcome, said)


def faulty_worlds(steps: int, folder: Path) -> Iterator[Trial]:
    """NaN in the observation, or an exception, at each of so many steps."""
    for fault, label in (("nan", "NaN observed"), ("raises", "simulator raises")):
        for at in range(1, steps + 1):
            place = folder / f"{fault}-{at}"
            place.mkdir()
            task = f"{{task: gym, id: Faults-v0, options: {{fault: {fault}, at: {at}}}}}"
            one = ("env=gymnasium", "method=single", "protocol.num_tasks=1")
            run = place / "run"
            settings = (*one, f"env.tasks=[{task}]", "protocol.planned_steps=60")
            code = wait(start(begins(run, settings), place / "log"))
            met = refused(label, f"step {at}", place / "log", code, "Faults-v0, step ")
            latest = run / "checkpoints/latest.safetensors"
            if latest.exists() and "nan" in str(_plain_floats(load_checkpoint(latest))):
                met = Trial(label, f"step {at}", SILENT, "NaN in the checkpoint")
            yield met


def _plain_floats(tree: dict[str, Any]) -> list[Any]:
    replay = tree["learner"]["replay"]
    return [replay["obs"].sum().item(), replay["next_obs"].sum().item()]


def configurations(count: int) -> list[tuple[str, ...]]:
    """Every method, and every memory with hnet; so many, spread over all of them."""
    every = [(f"method={method}",) for method in METHODS]
    every += [("method=hnet", f"memory={m}", *WITH_MEMORY) for m in MEMORIES if m != "none"]
    count = min(count, len(every))
    return [every[number * len(every) // count] for number in range(count)]


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def trials(given: argparse.Namespace, folder: Path) -> Iterator[Trial]:
    """All of them, as they end."""
    references = [
        reference(settings, folder / f"reference-{number}")
        for number, settings in enumerate(configurations(given.configurations))
    ]
    first = references[0]
    yield from damaged(given.flips, first, folder)
    yield from latest_gone(first, folder)
    yield from two_writers(first, folder)
    yield from clock_back(first, folder)
    yield from faulty_worlds(given.steps, folder)
    yield from full_disks(given.fills, first, folder)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        yield from signals(number.name, number, given.signals, references, folder)
    yield from signals("SIGKILL", signal.SIGKILL, given.kills, references, folder)


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


def about() -> dict[str, str]:
    """What is run, and on what."""
    return {
        "command": "python scripts/faults.py " + " ".join(sys.argv[1:]),
        "commit": git_revision(),
        "machine": machine(torch.device("cpu")),
    }


def write(found: Sequence[Trial], about: dict[str, str], out: Path) -> None:
    """`out`.json with every trial that is not among thousands alike, and `out`.md."""
    told = [t for t in found if t.seconds is not None or t.outcome not in (SAME, MESSAGE)]
    rows = {
        fault: {o: sum(t.fault == fault and t.outcome == o for t in found) for o in OUTCOMES}
        for fault in dict.fromkeys(t.fault for t in found)
    }
    write_json(out.with_suffix(".json"), {**about, "rows": rows, "told": list(map(asdict, told))})
    text = (
        "# Faults and outcomes\n\n"
        f"`{about['command']}`, commit {about['commit']}, {about['machine']}.\n\n"
        f"{table(found)}\n"
        "same: gone on with, it came to the result, records, weights and random states of a run "
        "without the fault, bit for bit. message: exit code 2 and one message, or a checkpoint "
        "that is refused. The other three should be 0.\n"
    )
    out.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="OUT.json and OUT.md are written")
    parser.add_argument("--configurations", type=int, default=4, help="methods and memories")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--signals", type=int, default=4, help="of each kind")
    parser.add_argument("--fills", type=int, default=5, help="sizes of a disk")
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=4, help="at which a world fails")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hypercrl.commands.train.write_report = lambda *_: Path()  # most of a small run's time
    done: list[Trial] = []
    ran = about()
    with scratch() as place:
        for trial in trials(arguments, place):
            done.append(trial)
            if trial.outcome not in (SAME, MESSAGE):
                print(trial, flush=True)
    print(table(done))
    write(done, ran, arguments.out)
    sys.exit(any(trial.outcome not in (SAME, MESSAGE) for trial in done))
