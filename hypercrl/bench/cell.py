"""One run of a grid: where it lies, how far it is, how it is started or continued."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.base.lock import locked
from hypercrl.config.overrides import override
from hypercrl.config.sources import config_dir_words
from hypercrl.runs.run_folder import FAILURE, RunFolder

_TAIL = 4096
"""Bytes from the end of metrics.jsonl in which the last whole record is looked for."""


class Status(Enum):
    """What a table shows of a cell."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Cell:
    """A run: its settings as words for a command of `hypercrl`, and its folder."""

    name: str
    overrides: tuple[str, ...]
    folder: Path
    command: str = "train"

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return RunFolder(self.folder).ended

    @property
    def log(self) -> Path:
        """What the run printed, all attempts one after another."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def but_seed(self) -> tuple[str, ...]:
        """The overrides that it shares with itself on other seeds."""
        return tuple(word for word in self.overrides if not word.startswith("seed="))

    def words(self) -> list[str]:
        """The arguments of `hypercrl` that start this run, or go on with what is there of it."""
        if (self.folder / "config.yaml").exists():
            kept = [word for word in self.overrides if word.startswith(("device=", "trust="))]
            return ["train", override("resume", self.folder), *kept]
        # Without a configuration nothing was begun; what is there all the same, the run refuses.
        place = override("run_dir", self.folder)
        return [self.command, *config_dir_words(), *self.overrides, place]

    def progress(self) -> tuple[int, int] | None:
        """Task in training, from 1, and environment steps, as last logged; None: nothing logged."""
        try:
            with open(self.folder / "metrics.jsonl", "rb") as file:
                file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
                *lines, _ = file.read().split(b"\n")
            last = json.loads(lines[-1])
            return last["task"], last["env_steps"]
        except (OSError, ValueError, IndexError, KeyError):
            return None

    def fail(self, reason: str) -> None:
        """Leave word, for the report, that this run was given up.

        In a run that was begun and that nobody else writes to; in no other folder.
        """
        if not (self.folder / "config.yaml").is_file():
            return
        with suppress(UserError, OSError), locked(self.folder):
            write_atomically(self.folder / FAILURE, f"{reason}\n".encode())

    def last_words(self, begin: str = "") -> str:
        """The last line of its log that begins so."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.startswith(begin)), "")


@dataclass
class Progress:
    """How a cell stands: attempts begun, the task last told of, seconds, the last trouble, and
    whether it gets a GPU to itself, as one had let it down."""

    cell: Cell
    status: Status
    attempts: int = 0
    task: int = 0
    started: float = 0.0
    seconds: float = 0.0
    reason: str = ""
    alone: bool = False
