"""A grid of `hypercrl bench` that a benchmark runs, and the rows that it comes to."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from hypercrl.base.cores import cores
from hypercrl.base.strict_json import write_json
from hypercrl.training.result import git_revision, machine, repeatable

TOLD = re.compile(r"done after|tried again|given up|MPS|cells failed|^hypercrl:")
"""Of a grid's lines, those that are passed on."""


class Record:
    """Rows of one part: printed and written as they come."""

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.rows, self.started = path, [], time.monotonic()
        self.head = {"git": git_revision(), "machine": machine(torch.device(device))}
        self.head |= {"cores": cores(), "torch": torch.__version__}

    def add(self, what: str, said: str, **values: Any) -> None:
        self.rows.append({"what": what, **values})
        print(f"{time.monotonic() - self.started:5.0f}s {what:44}{said}", flush=True)
        write_json(self.path, {**self.head, "rows": self.rows}, indent=1)

    def check(self, what: str, holds: bool, why: str = "") -> bool:
        self.add(what, "yes" if holds else f"NO {why}", holds=holds)
        return holds


class Bench:
    """`hypercrl bench` in a folder of its own, its lines passed on.

    Args:
        words: settings. limit: seconds after which it is interrupted, in order.
        environment: in place of this process's.
    """

    def __init__(
        self, words: Sequence[str], limit: float = 560.0, environment: dict[str, str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="grid-")  # until this object goes
        self.out = Path(self._folder.name) / "out"
        self.command = [sys.executable, "-m", "hypercrl", "bench", *words, f"out={self.out}"]
        self.limit, self.environment = limit, environment
        self.lines: list[str] = []
        self.seconds, self.interrupted = 0.0, False

    def run(self, meanwhile: Callable[[Bench], None] = lambda _: None) -> Bench:
        """Until it ends; `meanwhile` is called beside it."""
        print(f"      $ hypercrl {' '.join(self.command[3:])}", flush=True)
        begun = time.monotonic()
        process = subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
        timer = threading.Timer(self.limit, self._interrupt, (process,))
        beside = threading.Thread(target=meanwhile, args=(self,), daemon=True)
        timer.start()
        beside.start()
        assert process.stdout is not None
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if TOLD.search(line):
                print(f"      {line.rstrip()[:150]}", flush=True)
        process.wait()
        timer.cancel()
        self.seconds = time.monotonic() - begun
        return self

    def _interrupt(self, process: subprocess.Popen[str]) -> None:
        self.interrupted = True
        process.send_signal(signal.SIGINT)

    @property
    def served(self) -> bool:
        return any("share a GPU through CUDA MPS" in line for line in self.lines)

    @property
    def tried_again(self) -> list[str]:
        return [line.partition(":")[0] for line in self.lines if "to be tried again" in line]

    def folders(self) -> list[Path]:
        return sorted(p.parent for p in self.out.glob("cells/*/config.yaml"))

    def results(self) -> dict[str, dict[str, Any]]:
        """Of the cells that ended, by their folders' names."""
        files = self.out.glob("cells/*/result.json")
        return {file.parent.name: json.loads(file.read_text()) for file in sorted(files)}

    def spans(self) -> dict[str, float]:
        """Seconds from the first cell's folder to the last result, and from then to the end."""
        begun = min((f / "config.yaml").stat().st_mtime for f in self.folders())
        ended = max(p.stat().st_mtime for p in self.out.glob("cells/*/result.json"))
        return {"cells_seconds": ended - begun, "report_seconds": time.time() - ended}


def different(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> list[str]:
    """Cells that did not come to the same, with what differs, or are in one grid alone."""
    found = []
    for name in sorted(one.keys() | other.keys()):
        first, second = repeatable(one.get(name, {})), repeatable(other.get(name, {}))
        keys = [k for k in sorted(first.keys() | second.keys()) if first.get(k) != second.get(k)]
        if keys:
            found.append(f"{name} ({' '.join(keys[:4])})")
    return found


def success(results: dict[str, dict[str, Any]]) -> list[float]:
    """After the last task, task by task, the mean over runs."""
    last = torch.tensor([result["success"][-1] for result in results.values()])
    return [round(value, 3) for value in last.mean(0).tolist()]


def last_record(folder: Path) -> list[int]:
    """Task and steps that a run has come to."""
    with suppress(OSError, ValueError, KeyError, IndexError):
        last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
        return [last["task"], last["env_steps"]]
    return [0, 0]
