"""CUDA MPS for a grid: the kernels of its runs share a GPU at the same time, not by turns.

NVIDIA's Multi-Process Service is a daemon; processes that find its folder get one context on a GPU.
So a grid begins one in a folder of its own, names the folder to its runs, and ends the daemon with
itself. Grids of one user on the same GPUs share a daemon, which the last one ends; what a killed
grid left, the next one ends. Modes and settings of the device stay as they are.

A fault on the GPU may end every run that is served with the one whose fault it was. So who ended by
a fault is not served again: what faults then is its own (`Service`).
"""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hypercrl.base.errors import UserError
from hypercrl.base.gpu_faults import GPU_FAULT
from hypercrl.bench.gpus import NoAnswer, visible_gpus

CONTROL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
LOGS = "CUDA_MPS_LOG_DIRECTORY"
USUAL = "/tmp/nvidia-mps"
"""Where a process looks for a daemon if its environment names no folder."""
OUTSIDE = {PIPES: "/nonexistent"}
"""Environment of a process that no daemon serves, not even one in the usual folder."""

SHARED_FAULT = 256 + GPU_FAULT
"""Stands for `GPU_FAULT` where the run was served together with others, whose fault it may be."""

NOTHING: Mapping[str, str] = MappingProxyType({})

WISHES = ("auto", "true", "false")
MOST_CLIENTS = 48
"""Processes that MPS serves on a GPU, from Volta on."""

ANSWER_SECONDS = 20.0
QUIT_SECONDS = 10
"""That runs which are still served have to save and end, once the daemon is to quit."""


class Service:
    """Which runs are served: all that no fault has ended and that need not be alone.

    Args:
        environment: of a run that is served, `OUTSIDE`, or nothing: as it comes.
    """

    def __init__(self, environment: Mapping[str, str] = NOTHING) -> None:
        self.environment = environment
        self._apart: set[str] = set()

    @property
    def serves(self) -> bool:
        return bool(self.environment) and self.environment != OUTSIDE

    def environment_of(self, run: str, alone: bool) -> Mapping[str, str]:
        """What is added to the environment of a run, by its name."""
        if alone:
            self._apart.add(run)
        return OUTSIDE if self.serves and run in self._apart else self.environment

    def code(self, run: str, code: int) -> int:
        """The exit code of a run, or `SHARED_FAULT`, which a run gets once at most."""
        if code != GPU_FAULT or not self.serves or run in self._apart:
            return code
        self._apart.add(run)
        return SHARED_FAULT


class Unavailable(Exception):
    """Why MPS cannot serve."""


@contextmanager
def served(
    gpus: Sequence[str], runs: int, wish: str, say: Callable[[str], object]
) -> Iterator[Service]:
    """Let the runs of the block share their GPUs through MPS, where they may and it pays.

    Args:
        gpus: names of the GPUs that are dealt to the runs; none: they do not run on CUDA.
        runs: most that run at a time.
        wish: of `WISHES`; auto: where several runs share a GPU and MPS is to be had.
        say: is told in one line that it is used, or why not.

    Raises:
        UserError: it is to be used, and cannot.
    """
    each = -(-runs // len(gpus)) if gpus else 0
    if wish == "false":
        yield Service(OUTSIDE if gpus else NOTHING)
        return
    if wish == "auto" and each < 2:
        yield Service()
        return
    with ExitStack() as stack:
        environment = NOTHING
        try:
            how, environment = stack.enter_context(_service(gpus, each))
            say(f"up to {each} runs share a GPU through CUDA MPS ({how})")
        except Unavailable as reason:
            if wish == "true":
                raise UserError(f"mps=true, but {reason}. Leave it out, or mend that.") from reason
            say(f"runs take turns on the GPU, without CUDA MPS: {reason}")
        yield Service(environment)


@contextmanager
def _service(gpus: Sequence[str], each: int) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Where MPS comes from, and what to add to the environment to be served.

    Raises:
        Unavailable: MPS cannot serve.
    """
    if not gpus:
        raise Unavailable("the runs do not use CUDA")
    if each > MOST_CLIENTS:
        raise Unavailable(
            f"it serves {MOST_CLIENTS} processes a GPU at most, and there are to be {each}"
        )
    program = shutil.which(CONTROL)
    if program is None:
        raise Unavailable(f"there is no {CONTROL}; it comes with NVIDIA's driver")
    usual = Daemon(program, os.environ)
    if usual.answers():
        place = os.environ.get(PIPES, USUAL)
        yield f"the daemon that runs here already, in {place}", {PIPES: place}
        return
    with _leased(program, gpus) as environment:
        yield "a daemon that ends with this grid", environment


@contextmanager
def _leased(program: str, gpus: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """A daemon for these GPUs, shared with this user's other grids on them.

    Everybody who needs it holds `users`; whoever looks whether somebody does holds `gate`.

    Raises:
        Unavailable: it does not begin, or does not serve.
    """
    folder = _own_folder(gpus)
    environment = {PIPES: str(folder / "pipe"), LOGS: str(folder / "log")}
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}
    daemon = Daemon(program, {**os.environ, **environment, **devices})
    with open(folder / "users", "a") as users:
        with _held(folder / "gate"):
            if _nobody_else(users.fileno()):
                daemon.end()  # what a killed grid left
            try:
                daemon.begin()
                _check_serves(gpus, {**os.environ, **environment, **devices})
            except BaseException:
                if _nobody_else(users.fileno()):
                    daemon.end()
                raise
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield environment
        finally:
            with _held(folder / "gate"):
                if _nobody_else(users.fileno()):
                    daemon.end()


def _own_folder(gpus: Sequence[str]) -> Path:
    """A folder that is this user's alone, with a name short enough for a socket in it.

    Raises:
        Unavailable: somebody else has one of that name.
    """
    which = zlib.crc32(",".join(sorted(gpus)).encode())
    folder = Path(tempfile.gettempdir()) / f"hypercrl-mps-{os.getuid()}-{which:08x}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise Unavailable(f"there is no place for its files: {error}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise Unavailable(f"{folder}, where its files are to be, is somebody else's")
    return folder


@contextmanager
def _held(file: Path) -> Iterator[None]:
    with open(file, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nobody_else(users: int) -> bool:
    """Whether no other process needs the daemon; if so, this one holds the file for itself."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_serves(gpus: Sequence[str], environment: Mapping[str, str]) -> None:
    """See that a process which is served has the same GPUs, and that the server is up.

    Raises:
        Unavailable: it has not.
    """
    try:
        seen = [gpu.name for gpu in visible_gpus(environment)]
    except NoAnswer as error:
        raise Unavailable(f"what it serves cannot use the GPU ({error})") from error
    if sorted(seen) != sorted(gpus):
        raise Unavailable(f"what it serves sees {', '.join(seen)} in place of {', '.join(gpus)}")


class Daemon:
    """NVIDIA's control daemon in the folder that an environment names.

    Args:
        program: that begins it, and that hands it commands.
        environment: PIPES, LOGS and CUDA_VISIBLE_DEVICES say where and for what.
    """

    def __init__(self, program: str, environment: Mapping[str, str]) -> None:
        self.program = program
        self.environment = dict(environment)

    def answers(self) -> bool:
        """Whether it is there."""
        return self._tell("get_server_list") == 0

    def begin(self) -> None:
        """Begin it, unless it is there.

        Raises:
            Unavailable: it does not begin.
        """
        if self.answers():
            return
        log = Path(self.environment[LOGS])
        for folder in (log, Path(self.environment[PIPES])):
            folder.mkdir(mode=0o700, exist_ok=True)
        # A session of its own: Ctrl-C is for the grid, which has still to save.
        with open(log / "begin", "wb") as said:
            code = self._run("-d", stdout=said, stderr=said, start_new_session=True)
        if code or not self._waits_until(True, ANSWER_SECONDS):
            words = (log / "begin").read_text(errors="replace").strip().rpartition("\n")[2]
            raise Unavailable(f"its daemon does not begin ({words or f'exit code {code}'})")

    def end(self) -> None:
        """End it, if it is there: in order, or else by force."""
        pipes = Path(self.environment[PIPES])
        if self.answers():
            self._tell(f"quit -t {QUIT_SECONDS}")
            if not self._waits_until(False, QUIT_SECONDS + ANSWER_SECONDS):
                with suppress(OSError, ValueError):
                    process = int((pipes / f"{CONTROL}.pid").read_text())
                    os.kill(process, signal.SIGKILL)
        shutil.rmtree(pipes, ignore_errors=True)

    def _tell(self, command: str) -> int:
        """Hand it a command; the exit code, 0 where it is there."""
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return self._run(said=command, **silent)

    def _run(self, *words: str, said: str = "", **options: Any) -> int:
        """The exit code of its program; one that does not end gets 1."""
        try:
            return subprocess.run(
                [self.program, *words],
                env=self.environment,
                input=f"{said}\n".encode(),
                timeout=ANSWER_SECONDS,
                **options,
            ).returncode
        except subprocess.TimeoutExpired:
            return 1

    def _waits_until(self, there: bool, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.answers() is not there:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True
