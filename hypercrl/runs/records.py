"""Records of a run, a line of metrics.jsonl each: what is one, and how they are read back."""

import os
from pathlib import Path
from typing import Any

from hypercrl.base.errors import UserError
from hypercrl.base.strict_json import from_json

Record = dict[str, Any]
"""Its kind, environment steps, task in training (from 1), of an evaluation the task that it is on,
and its figures."""

MOST_STEPS = 10**15
MOST_TASKS = 10_000
"""Beyond these a record is no record of a run."""
BIG = 10**300
"""Whole numbers below it are floats too."""
TAIL = 4096
"""Bytes from the end of the file in which the last whole record is looked for."""


def as_record(line: bytes) -> Record | None:
    """The record that a line holds; None: it is no whole one."""
    try:
        record = from_json(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    counts = ["env_steps", "task", *(["on"] if record["kind"] == "eval" else [])]
    if not all(type(record.get(key)) is int for key in counts):
        return None
    if not 0 <= record["env_steps"] <= MOST_STEPS or not 1 <= record["task"] <= MOST_TASKS:
        return None
    if not 1 <= record.get("on", 1) <= MOST_TASKS:
        return None
    figures = (value for key, value in record.items() if key != "kind")
    return record if all(map(_is_figure, figures)) else None


def _is_figure(value: Any) -> bool:
    """A number that a float holds, yes or no, or nothing."""
    if value is None or isinstance(value, float):
        return True
    return isinstance(value, int) and abs(value) < BIG


def read_records(file: Path) -> list[Record]:
    """All of them in order. A last line that is cut short, as one is that is being written or was
    when the run was killed, is left out.

    Raises:
        UserError: another line is no record; names it.
    """
    # Bytes, because a line can be cut inside a character.
    *lines, unfinished = file.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if (record := as_record(line)) is None:
            raise UserError(
                f"Line {number} of {file} is damaged: delete that line, and report again."
            )
        records.append(record)
    last = as_record(unfinished)
    return records if last is None else [*records, last]


def last_record(file: Path) -> Record | None:
    """The last whole one, from the end of a file of any length; None: there is none, or no file."""
    try:
        with open(file, "rb") as opened:
            opened.seek(max(opened.seek(0, os.SEEK_END) - TAIL, 0))
            *lines, _ = opened.read().split(b"\n")
    except OSError:
        return None
    return as_record(lines[-1]) if lines else None
