"""A run on disk: configuration, logs, checkpoints, result."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.counted import counted
from hypercrl.base.errors import UserError, first_line
from hypercrl.base.files import PARTIAL, seen_to, sync_folder, write_atomically
from hypercrl.base.lock import LOCK, locked
from hypercrl.base.strict_json import from_json, write_json
from hypercrl.config.fitted import fitted
from hypercrl.config.overrides import in_shell
from hypercrl.config.stored import read_stored, signed
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.runs.demos import demo_names, find_run, is_demo
from hypercrl.runs.needs import check_needs, write_needs
from hypercrl.runs.trackers import NoTracker
from hypercrl_envs import TaskFault

LATEST = "latest"
PREVIOUS = "previous"
"""The checkpoint that was the latest before."""
SCHEMA = 1
"""Of result.json: goes up when a key goes, or means something else. New keys leave it."""
MISFITS = (
    *(ArithmeticError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""What parts raise of a state that is none of theirs."""
FAILURE = "failure.txt"
"""File that `hypercrl bench` leaves in a run that it gave up; says why."""


class RunFolder:
    """Paths and writers of one run.

    Layout: config.yaml, needs.json if it names anything of others, metrics.jsonl, tensorboard/,
    trackers/, checkpoints/latest.safetensors and the one before it, previous.safetensors,
    checkpoints/after_task_N.safetensors, result.json once the run
    has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.result_path = path / "result.json"

    @classmethod
    @contextmanager
    def create(cls, path: Path, config: DictConfig) -> Iterator["RunFolder"]:
        """A new folder with the resolved configuration in it, locked against other writers.

        It goes away again where a tracker cannot be had, which is before anything is trained.

        Raises:
            UserError: something is there already, or another process is making it.
        """
        _refuse_used(path)
        with seen_to(path), locked(path):
            _refuse_used(path)  # by a run that was quicker
            folder = cls(path)
            folder._sweep()
            text = signed(OmegaConf.to_yaml(config, resolve=True))
            values = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
            with folder.written():
                write_needs(path, values)
                write_atomically(path / "config.yaml", text.encode())
                folder.metrics_path.touch()
            try:
                yield folder
            except NoTracker:
                _empty(path)
                raise

    @classmethod
    @contextmanager
    def resume(cls, path: Path) -> Iterator["RunFolder"]:
        """An existing run to go on with, locked against other writers.

        Raises:
            UserError: there is no run at `path`, it is a demo or has ended, wherever it lies, or
                another process goes on with it.
        """
        folder = cls.open(path)
        if is_demo(folder.path):
            raise UserError(
                f"{path} comes with hypercrl, to be played and loaded: there is nothing to go on "
                "with. Train an agent of your own with: hypercrl train env=push preset=quick"
            )
        folder._refuse_ended()  # one that has may lie where nothing can be written
        with locked(path):
            folder._refuse_ended()  # by a process that was quicker
            (path / FAILURE).unlink(missing_ok=True)
            folder._sweep()
            yield folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run, to be read; where nothing is at `path`, the demo of that name.

        Raises:
            UserError: there is no run at `path`.
        """
        found = find_run(path)
        if not (found / "config.yaml").is_file():
            below = [*found.glob("cells/*/config.yaml"), *found.glob("*/config.yaml")]
            if below:
                raise UserError(
                    f"{path} is no run, but has {counted(len(below), 'run')} below it: name one, "
                    f"such as {min(below).parent}."
                )
            raise UserError(
                f"There is no run at {path} (no config.yaml in it). Runs lie under runs/train/ "
                f"unless run_dir said otherwise; {', '.join(demo_names())} comes with hypercrl."
            )
        return cls(found)

    @property
    def ended(self) -> bool:
        """Whether its result is there, and whole."""
        try:
            return isinstance(from_json(self.result_path.read_bytes()), dict)
        except (OSError, ValueError):
            return False

    def _refuse_ended(self) -> None:
        if self.ended:
            there = shlex.quote(str(self.path))
            raise UserError(
                f"{self.path} has ended; see it with: hypercrl report {there}. Further tasks are "
                f"learned with: hypercrl train {in_shell('extend', self.path)} protocol.num_tasks=N"
            )

    def config(self, schema: type, *, trust: bool = False) -> Any:
        """The configuration the run was started with, as an instance of the dataclass `schema`.

        Args:
            schema: a dataclass.
            trust: whether code that the configuration names may be imported, whoever wrote it.

        Raises:
            UserError: the file is damaged, or does not fit the schema (see `fitted`); code that a
                stranger's names would be imported; or what it needs of others is not there.
        """
        values = read_stored(self.path / "config.yaml", trust=trust)
        check_needs(self.path)
        return fitted(values, schema, self.path / "config.yaml")

    def checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of that name lies."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints there are."""
        return sorted(p.stem for p in (self.path / "checkpoints").glob("[!.]*.safetensors"))

    def save_checkpoint(self, name: str, tree: dict[str, Any]) -> None:
        """Write one, atomically; what was the latest one so far is kept as the previous one.

        Raises:
            UserError: it cannot be written; those that are there are as they were.
        """
        path = self.checkpoint_path(name)

        def keep() -> None:
            if name == LATEST and path.exists():
                os.replace(path, self.checkpoint_path(PREVIOUS))

        with self.written():
            save_checkpoint(path, tree, keep)

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        """Read one.

        Raises:
            UserError: it is missing or damaged; names the ones that are there.
        """
        path = self.checkpoint_path(name)
        if not path.is_file():
            there = ", ".join(self.checkpoints()) or "none yet"
            raise UserError(f"{self.path} has no checkpoint {name!r}; there are: {there}.")
        try:
            return load_checkpoint(path)
        except UserError as error:
            raise UserError(f"{error} {self.advice(name)}") from error

    def newest_checkpoint(self) -> tuple[str, dict[str, Any]] | None:
        """Name and tree of the one to go on from; None: the run is where it began.

        It is the latest one. Where that is missing or damaged it is the newest sound one whose
        records are all in metrics.jsonl, and a notice says so.

        Raises:
            UserError: there are records but nothing to go on from.
        """
        there = self.metrics_path.stat().st_size if self.metrics_path.exists() else 0
        if not there and not self.checkpoints():
            return None
        try:
            return LATEST, load_checkpoint(self.checkpoint_path(LATEST))
        except UserError as error:
            reason = str(error)
        newest: tuple[tuple[int, int], str, dict[str, Any]] | None = None
        for name in self.checkpoints():
            with suppress(UserError, LookupError, TypeError):
                tree = load_checkpoint(self.checkpoint_path(name))
                progress = tree["log_bytes"], tree["position"]["env_steps"]
                if progress[0] <= there and (newest is None or progress > newest[0]):
                    newest = progress, name, tree
        if newest is None:
            raise UserError(
                f"{reason} No other one is sound, and {self.path} is left as it is. Put one back, "
                "or begin a new run."
            )
        (_, env_steps), name, tree = newest
        print(
            f"hypercrl: {reason} Going on from {name!r}, after {env_steps} environment steps.",
            file=sys.stderr,
        )
        return name, tree

    def make_latest(self, name: str, keep: bool = False) -> None:
        """Put a checkpoint in the latest one's place as well.

        Args:
            keep: what was the latest one so far, as the previous one. Both names then are of one
                file, where that can be; without a previous one, damage to it would cost them both.
        """
        if name == LATEST:
            return
        written, latest = self.checkpoint_path(name), self.checkpoint_path(LATEST)
        with self.written():
            if not keep:
                write_atomically(latest, written.read_bytes())
                return
            partial = latest.with_name(f".{latest.name}.{os.getpid()}.partial")
            try:
                os.link(written, partial)
            except OSError:  # no hard links there
                shutil.copyfile(written, partial)
            if latest.exists():
                os.replace(latest, self.checkpoint_path(PREVIOUS))
            os.replace(partial, latest)
            sync_folder(latest.parent)

    @property
    def goes_on_with(self) -> str:
        """The command, as one types it."""
        return f"hypercrl train {in_shell('resume', self.path)}"

    def advice(self, name: str) -> str:
        """What to do about a checkpoint that cannot be used."""
        others = [other for other in self.checkpoints() if other != name]
        if not others:
            return "There is no other one; begin a new run."
        if self.ended:  # nothing goes on with it, but others are played
            named = in_shell("checkpoint", others[-1])
            return f"There are also {', '.join(others)}; take one of them with: {named}"
        command = f"{self.goes_on_with} {in_shell('checkpoint', others[-1])}"
        return f"There are also {', '.join(others)}; go on from one of them with: {command}"

    def _sweep(self) -> None:
        """Remove what killed processes were in the midst of writing."""
        for folder in (self.path, self.path / "checkpoints"):
            for partial in folder.glob(PARTIAL):
                partial.unlink(missing_ok=True)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Around whatever writes into the folder.

        Raises:
            UserError: it cannot be written to, most often because the disk is full.
        """
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written to: {error.strerror or error}. Its checkpoints are "
                "as they were; once there is room, go on with: hypercrl train "
                f"{in_shell('resume', self.path)}"
            ) from error

    @contextmanager
    def foreign_state_refused(self, name: str) -> Iterator[None]:
        """Around the loading of a checkpoint's state into the parts that config.yaml describes.

        Raises:
            UserError: the state does not fit them.
        """
        try:
            yield
        except TaskFault:  # of an environment that replays an episode
            raise
        except MISFITS as error:
            raise UserError(
                f"The checkpoint {self.checkpoint_path(name)} does not belong to this run: it does "
                f"not fit {self.path}/config.yaml ({first_line(error)}). {self.advice(name)}"
            ) from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, atomically.

        Raises:
            UserError: it cannot be written.
        """
        with self.written():
            write_json(self.result_path, result, indent=2)


def _refuse_used(path: Path) -> None:
    if path.exists() and not (path.is_dir() and all(map(_of_nobody, path.iterdir()))):
        run = RunFolder(path)
        open_end = (path / "config.yaml").is_file() and not run.ended
        raise UserError(
            f"{path} exists already and is left as it is. Name another run_dir"
            + (f", or continue that run with: {run.goes_on_with}" if open_end else ".")
        )


def _empty(folder: Path) -> None:
    """Remove all that is in it."""
    for each in folder.iterdir():
        with suppress(OSError):
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()


def _of_nobody(path: Path) -> bool:
    """Whether a file is what remains of a process that was killed as it made a run."""
    return path.name == LOCK or path.match(PARTIAL)
