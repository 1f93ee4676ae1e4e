"""What is kept of a cell of the evidence: a line of JSON, beside others of its sequence.

`docs/results/evidence/SEQUENCE.jsonl` begins with a line of the settings that all its cells share;
a cell's line holds those of its method, its matrices, and what it cost. Whatever is kept here
agrees with what the grid asks for now, in every setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from evidence_grid import METHODS, SEQUENCES, EvidenceCell
from omegaconf import DictConfig, OmegaConf

from hypercrl.base.dotted import dotted
from hypercrl.base.errors import UserError
from hypercrl.base.files import write_atomically
from hypercrl.base.strict_json import from_json, to_json
from hypercrl.config.compose import composed
from hypercrl.config.ignored import why_ignored
from hypercrl.config.stored import parse_stored
from hypercrl.runs.run_folder import RunFolder

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "results" / "evidence"
FREE = ("seed", "device", "simulators", "logger", "run_dir", "resume", "checkpoint", "trust")
"""Settings that say which run it was, or that change no result but in its last digits."""
DIGITS = {"success": 4, "scores": 5, "prediction_error": 4}
"""Matrices that are kept, and their significant digits."""
COSTS = ("seconds", "seconds_by", "training_seconds", "plan_milliseconds", "update_milliseconds")
COUNTS = ("plans", "updates", "extra_updates", "env_steps", "parameters", "memory_bytes")
ABOUT = ("git", "machine", "prediction_horizon")

Settings = dict[str, Any]


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Dotted names and values of all that results depend on, but for the seed."""
    found = {k: v for k, v in dotted(dict(config)) if k.partition(".")[0] not in FREE}
    if found.get("planner.precision") == "bf16":  # null, as it is taken on CUDA and on some CPUs
        found["planner.precision"] = None
    return found


@cache
def _config(sequence: str, method: str) -> DictConfig:
    return composed("train", EvidenceCell(sequence, method, 0).words())


@cache
def wanted(sequence: str, method: str) -> Settings:
    """The settings that the grid asks for now."""
    plain: Any = OmegaConf.to_container(_config(sequence, method), resolve=True)
    return settings_of(plain)


def shared(settings: Settings) -> Settings:
    """The part that has to be alike in all cells of a sequence."""
    return {key: value for key, value in settings.items() if not key.startswith("method.")}


def own(settings: Settings) -> Settings:
    """The method's part."""
    return {key: value for key, value in settings.items() if key.startswith("method.")}


def differing(kept: Settings, cell: EvidenceCell) -> list[str]:
    """Settings of `kept` that are others now, and that results of this cell depend on.

    One that was not there then has its old meaning, and one that has no effect with the others,
    such as those of the inference of tasks that are given, may have another value since.
    """
    config, now = _config(cell.sequence, cell.method), wanted(cell.sequence, cell.method)
    changed = sorted(key for key, value in kept.items() if now.get(key, _NOT_THERE) != value)
    return [key for key in changed if not why_ignored(config, key)]


_NOT_THERE = object()


def packed(cell: EvidenceCell, folder: Path, commit: str | None = None) -> dict[str, Any]:
    """A run that has ended, small enough to be kept, its settings in full.

    Args:
        cell: which one it is.
        folder: of the run.
        commit: of the program, where it runs without its repository.
    """
    result = from_json(RunFolder(folder).result_path.read_bytes())
    config, _ = parse_stored(folder / "config.yaml")
    record: dict[str, Any] = {"cell": cell.name, "settings": settings_of(config)}
    for name, digits in DIGITS.items():
        record[name] = [_row(row, digits) for row in result[name]]
    record |= {name: _short(result[name]) for name in COSTS}
    record |= {name: result[name] for name in (*COUNTS, *ABOUT)}
    record["torch"] = result["versions"]["torch"]
    if used := _plasticity(folder):
        record["plasticity"] = used
    return record | ({"git": commit} if commit else {})


def _plasticity(folder: Path) -> dict[str, list[float]]:
    """By measure, its value after each task."""
    found: dict[str, list[float]] = {}
    for line in read_lines(RunFolder(folder).metrics_path):
        if line["kind"] == "plasticity":
            for name, value in line.items():
                if name not in ("kind", "env_steps", "task"):
                    found.setdefault(name, []).append(_short(value))
    return found


def _row(values: Sequence[float | None], digits: int) -> Any:
    """A row of a matrix; of one of which little was measured, task (from 1) and value."""
    short = [None if v is None else float(f"{v:.{digits}g}") for v in values]
    there = {str(task): v for task, v in enumerate(short, start=1) if v is not None}
    return short if 2 * len(there) > len(short) else there


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {key: _short(entry) for key, entry in value.items()}
    return [_short(entry) for entry in value] if isinstance(value, list) else value


def matrix(record: Mapping[str, Any], name: str) -> np.ndarray:
    """[N + 1, N] of a kept record; NaN where nothing was measured."""
    rows = record[name]
    values = np.full((len(rows), len(rows) - 1), np.nan)
    for stage, row in enumerate(rows):
        entries = row.items() if isinstance(row, dict) else enumerate(row, start=1)
        for task, value in entries:
            values[stage, int(task) - 1] = np.nan if value is None else value
    return values


def kept(folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """All records whose settings are those of the grid now, by name; `settings` in full.

    Raises:
        UserError: a file holds what others share no longer: settings of the sequence were changed.
    """
    found = {}
    for name in SEQUENCES:
        header, records = _read(folder / f"{name}.jsonl")
        for record in records:
            cell = cell_of(record)
            settings = {**header["settings"], **record["settings"]}
            if changed := differing(shared(settings), cell):
                raise UserError(
                    f"{folder / name}.jsonl was measured with other settings "
                    f"({', '.join(changed)}). Move it away, or change the grid back."
                )
            if not differing(own(settings), cell):
                found[cell.name] = {**record, "settings": settings}
    return found


def names(folder: Path = FOLDER) -> set[str]:
    """Of all cells that have a record, whatever its settings: to compose those takes seconds."""
    return {record["cell"] for name in SEQUENCES for record in _read(folder / f"{name}.jsonl")[1]}


def take(records: Iterable[Mapping[str, Any]], folder: Path = FOLDER) -> dict[str, str]:
    """Merge records into what is kept; for each what became of it.

    One that was kept before stays. One with other settings than the grid's is refused.
    """
    said, before = {}, kept(folder)
    for record in records:
        cell = cell_of(record)
        changed = differing(record["settings"], cell)
        if changed:
            said[cell.name] = f"refused: other settings ({', '.join(changed)})"
        elif cell.name in before:
            said.setdefault(cell.name, "there already")
        else:
            before[cell.name] = dict(record)
            said[cell.name] = "taken"
    folder.mkdir(parents=True, exist_ok=True)
    for name in SEQUENCES:
        mine = [r for r in before.values() if cell_of(r).sequence == name]
        if mine:
            write_atomically(folder / f"{name}.jsonl", _file(name, mine).encode())
    return said


def cell_of(record: Mapping[str, Any]) -> EvidenceCell:
    """Which cell a record is of.

    Raises:
        UserError: there is no such one in the grid.
    """
    sequence, _, rest = str(record.get("cell")).partition("/")
    method, _, seed = rest.partition("/")
    if sequence not in SEQUENCES or method not in METHODS or not seed.isdigit():
        raise UserError(f"the grid has no cell {record.get('cell')!r}.")
    return EvidenceCell(sequence, method, int(seed))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line that was cut short is left out.

    Raises:
        UserError: it cannot be read, or another line is damaged.
    """
    try:
        *lines, last = file.read_bytes().split(b"\n")
        whole = [from_json(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}") from error
    try:
        return [*whole, *([from_json(last)] if last.strip() else [])]
    except ValueError:
        return whole


def _read(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not file.exists():
        return {"settings": {}}, []
    header, *records = read_lines(file)
    return header, records


def _file(name: str, records: Sequence[dict[str, Any]]) -> str:
    """The header, then a line a cell, methods in the grid's order."""
    # The oldest settings: a later commit may know some more, of which these runs said nothing.
    least = min((shared(r["settings"]) for r in records), key=len)
    ordered = sorted(map(cell_of, records), key=lambda c: (METHODS.index(c.method), c.seed))
    by_name = {record["cell"]: record for record in records}
    lines = [to_json({"sequence": name, "settings": least})]
    for cell in ordered:
        record = by_name[cell.name]
        lines.append(to_json({**record, "settings": own(record["settings"])}))
    return "\n".join(lines) + "\n"
