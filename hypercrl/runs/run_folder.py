"""A run on disk: configuration, logs, checkpoints, result."""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.base.strict_json import write_json
from hypercrl.config.overrides import in_shell
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.planning import PLANNERS
from hypercrl.runs.checkpoint import load_checkpoint, save_checkpoint
from hypercrl.runs.lock import LOCK, locked
from hypercrl.runs.needs import check_needs, write_needs

LATEST = "latest"
SCHEMA = 1
"""Of result.json: goes up when a key goes, or means something else. New keys leave it."""
FAILURE = "failure.txt"
"""File that `hypercrl bench` leaves in a run that it gave up; says why."""


class RunFolder:
    """Paths and writers of one run.

    Layout: config.yaml, needs.json if it names anything of others, metrics.jsonl, tensorboard/,
    trackers/, checkpoints/latest.safetensors, checkpoints/after_task_N.safetensors, result.json
    once the run has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics_path = path / "metrics.jsonl"
        self.result_path = path / "result.json"

    @classmethod
    @contextmanager
    def create(cls, path: Path, config: DictConfig) -> Iterator["RunFolder"]:
        """A new folder with the resolved configuration in it, locked against other writers.

        Raises:
            UserError: something is there already, or another process is making it.
        """
        _refuse_used(path)
        with locked(path):
            _refuse_used(path)  # by a run that was quicker
            folder = cls(path)
            write_needs(path, cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)))
            write_atomically(path / "config.yaml", OmegaConf.to_yaml(config, resolve=True).encode())
            folder.metrics_path.touch()
            yield folder

    @classmethod
    @contextmanager
    def resume(cls, path: Path) -> Iterator["RunFolder"]:
        """An existing run to go on with, locked against other writers.

        Raises:
            UserError: there is no run at `path`, or another process goes on with it.
        """
        folder = cls.open(path)
        with locked(path):
            yield folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run, to be read.

        Raises:
            UserError: there is no run at `path`.
        """
        if not (path / "config.yaml").is_file():
            raise UserError(
                f"There is no run at {path} (no config.yaml in it). Runs lie under runs/train/ "
                "unless run_dir said otherwise."
            )
        return cls(path)

    def config(self, schema: type) -> Any:
        """The configuration the run was started with, as an instance of the dataclass `schema`.

        Raises:
            UserError: the file does not fit the schema, or what it needs of others is not there.
        """
        check_needs(self.path)
        try:
            stored = OmegaConf.load(self.path / "config.yaml")
            typed = OmegaConf.structured(schema)
            typed.method = METHODS[stored.method.name][1]
            typed.planner = PLANNERS[stored.planner.name][1]
            typed.memory = MEMORIES[stored.memory.name][1]
            return OmegaConf.to_object(OmegaConf.merge(typed, stored))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{self.path}/config.yaml does not fit this version of the program: {error}"
            ) from error

    def checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of that name lies."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints there are."""
        return sorted(p.stem for p in (self.path / "checkpoints").glob("[!.]*.safetensors"))

    def save_checkpoint(self, name: str, tree: dict[str, Any]) -> None:
        """Write one, atomically."""
        save_checkpoint(self.checkpoint_path(name), tree)

    def make_latest(self, name: str) -> None:
        """Make a checkpoint the latest as well: one file of two names, where that can be."""
        written, latest = self.checkpoint_path(name), self.checkpoint_path(LATEST)
        partial = latest.with_name(f".{latest.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(written, partial)
        except OSError:  # no hard links there
            shutil.copyfile(written, partial)
        os.replace(partial, latest)

    def load_checkpoint(self, name: str) -> dict[str, Any]:
        """Read one.

        Raises:
            UserError: it is missing or damaged; names the ones that are there.
        """
        path = self.checkpoint_path(name)
        if not path.is_file():
            there = ", ".join(self.checkpoints()) or "none yet"
            raise UserError(f"{self.path} has no checkpoint {name!r}; there are: {there}.")
        return load_checkpoint(path)

    @contextmanager
    def foreign_state_refused(self, name: str) -> Iterator[None]:
        """Around the loading of a checkpoint's state into the parts that config.yaml describes.

        Raises:
            UserError: the state does not fit them.
        """
        try:
            yield
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"The checkpoint {self.checkpoint_path(name)} does not belong to this run: it does "
                f"not fit {self.path}/config.yaml ({str(error).splitlines()[0]}). "
                "Use another one from its checkpoints/ folder."
            ) from error

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json, atomically."""
        write_json(self.result_path, result, indent=2)


def _refuse_used(path: Path) -> None:
    if path.exists() and (not path.is_dir() or any(p.name != LOCK for p in path.iterdir())):
        raise UserError(
            f"{path} exists already and is left as it is. Name another run_dir, or continue "
            f"that run with: hypercrl train {in_shell('resume', path)}"
        )
