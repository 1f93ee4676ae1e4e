"""From settings with several values to one cell for every combination of them."""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig

from hypercrl.base.errors import UserError, unwritable
from hypercrl.base.lock import LOCK, locked
from hypercrl.base.strict_json import from_json, to_json, write_json
from hypercrl.bench.cell import Cell
from hypercrl.config.compose import one_by_one
from hypercrl.config.ignored import check_used, used_words
from hypercrl.config.messages import check_choices, composing
from hypercrl.config.overrides import keys_of, parsed
from hypercrl.config.sources import TABLES
from hypercrl.config.sweeps import check_sweeps, matching
from hypercrl.memory import MEMORIES
from hypercrl.methods import METHODS
from hypercrl.runs.run_folder import RunFolder

FREE = ("device", "trust")
"""Settings that may change between calls: a result does not depend on them."""

EVERYTHING = "all"


@dataclass(frozen=True)
class Suite:
    """What the cells of a grid do.

    Attributes:
        command: of `hypercrl`, whose settings the cells' are.
        named: settings that every cell is named by, so that a grid can grow without moving its
            cells.
        choices: the setting of which "all" may be asked, and what that is.
    """

    command: str
    named: tuple[str, ...]
    choices: tuple[str, Sequence[str]]


TRAINING = Suite("train", ("env", "method", "seed"), ("method", tuple(METHODS)))
RECALL = Suite(
    "recall",
    ("memory", "memory.width", "seed"),
    ("memory", tuple(name for name in MEMORIES if name != "none")),
)


class Grid:
    """Every combination of the values given to settings of a suite's command.

    Values are written as for Hydra's multirun: `seed=0,1,2`, `seed=range(5)`,
    `method=hnet,single`, `method.beta=0.05,0.5`; `method=all` is every method.

    Args:
        words: key=value settings.
        out: folder of all runs.
        suite: what the runs do.

    Attributes:
        cells: in the order of the words' values.
        configs: of the cells, one for all that differ in their seeds alone.

    Raises:
        UserError: a setting that does not exist or a value that it does not take, in any cell; or
            `out` holds a grid with other settings.
    """

    def __init__(self, words: Sequence[str], out: Path, suite: Suite = TRAINING) -> None:
        self.out = out.resolve()
        self.suite = suite
        check_choices(suite.command, words)
        with composing(suite.command):
            axes = _axes(words, suite)
        for key in ("run_dir", "resume", "extend"):
            if key in keys_of(words):
                raise UserError(f"bench chooses {key} itself; leave it out.")
        moving = (*suite.named, *FREE)
        fixed = {k: v[0] for k, v in axes.items() if len(v) == 1 and k not in moving}
        self.fixed = fixed
        self._given, self._swept = axes.keys(), axes.keys() - {*moving, *fixed}
        combinations = [
            dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
        ]
        self.cells = _once([self._cell(values) for values in _that_they_have(combinations)])
        configs = compose_cells(self.cells)
        self._leave_out(configs)
        self.configs = list(configs.values())

    def _cell(self, values: dict[str, str]) -> Cell:
        swept = {k: v for k, v in values.items() if self._word_of(k) in self._swept}
        parts = [values[key] for key in self.suite.named if key in values]
        name = "-".join([*parts, *(f"{k}={v}" for k, v in sorted(swept.items()))]) or "run"
        name = re.sub(r"\\(.)", r"\1", name)  # as Hydra escapes the colon of "module:Class"
        folder = self.out / "cells" / re.sub(r"[^A-Za-z0-9_.+-]+", "_", name)
        overrides = tuple(f"{k}={v}" for k, v in values.items())
        return Cell(name, overrides, folder, self.suite.command)

    def _word_of(self, key: str) -> str:
        """The setting, or the group given at once, by which somebody has given this one."""
        return key if key in self._given else key.rpartition(".")[0]

    def _leave_out(self, configs: Mapping[tuple[str, ...], DictConfig]) -> None:
        """Of each cell, and of its name, the settings that have an effect on others alone.

        So memory=none,gru context.windows=8,16 is one grid, of three cells, of which that without a
        memory stays where it is if more windows are asked for.
        """
        used = {
            key: {word: used_words(config, [word]) for word in key}
            for key, config in configs.items()
        }
        words = (
            [part for word in cell.overrides for part in used[cell.but_seed].get(word, [word])]
            for cell in self.cells
        )
        self.cells = _once([self._cell(dict(w.split("=", 1) for w in own)) for own in words])

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder, or see that what is there belongs to this grid, and lock it.

        Raises:
            UserError: it was made with other settings, another process runs a grid in it, or, an
                Unwritable, nothing can be written there.
        """
        self._check_folder()
        with locked(self.out):
            self._check_folder()  # another grid may have been quicker
            try:
                write_json(self.out / "grid.json", self.fixed, indent=2)
            except OSError as error:
                raise unwritable(self.out, error) from error
            yield

    def earlier(self) -> list[Path]:
        """Folders of the runs that have ended here and are no cells of this grid.

        They have its fixed settings, see `claim`, and so go into one report with its own.
        """
        own = {cell.folder for cell in self.cells}
        there = sorted((self.out / "cells").glob("*"))
        return [run for run in there if run not in own and RunFolder(run).ended]

    def _read(self, file: Path) -> dict[str, str]:
        with suppress(ValueError):
            settings = from_json(file.read_bytes())
            if isinstance(settings, dict) and all(isinstance(v, str) for v in settings.values()):
                return settings
        raise UserError(
            f"{file} is damaged. If the runs beside it have the settings of this grid, write "
            f"into it: {to_json(self.fixed)}; otherwise name another out=."
        )

    def _check_folder(self) -> None:
        file = self.out / "grid.json"
        if file.exists():
            before = self._read(file)
            if before != self.fixed:
                raise UserError(
                    f"{self.out} holds a grid with {_listed(before)}, and now it is "
                    f"{_listed(self.fixed)}. Name another out=, or leave the settings as they were."
                )
        elif self.out.is_dir() and any(p.name != LOCK for p in self.out.iterdir()):
            raise UserError(f"{self.out} is not empty and holds no grid. Name another out=.")


def compose_cells(cells: Sequence[Cell]) -> dict[tuple[str, ...], DictConfig]:
    """Compose, and so check, every configuration of cells that differs in more than its seed.

    Returns:
        They by their settings but the seed.

    Raises:
        UserError: a setting that does not exist, values that cannot be, or a setting that has no
            effect on any cell.
    """
    different = {cell.but_seed: cell for cell in cells}
    with one_by_one() as composed:
        configs = {key: composed(cell.command, cell.overrides) for key, cell in different.items()}
    check_used((config, key) for key, config in configs.items())
    return configs


def _that_they_have(combinations: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Without the settings of a class, such as method.beta, that others of the grid have alone.

    What none of them has stays, and is refused as it is composed.
    """
    lacking = [_lacking(values) for values in combinations]
    nowhere = set.intersection(*lacking) if lacking else set()
    return [
        {key: value for key, value in values.items() if key not in lacks - nowhere}
        for values, lacks in zip(combinations, lacking, strict=True)
    ]


def _lacking(values: Mapping[str, str]) -> set[str]:
    """Settings of classes that those which are chosen do not have."""
    lacking = set()
    for group in TABLES.keys() & values.keys():
        with suppress(UserError):  # a file of the user's, or no such choice
            known = {field.name for field in fields(TABLES[group][values[group]][1])}
            inside = [key for key in values if key.startswith(f"{group}.")]
            lacking |= {key for key in inside if key.split(".")[1] not in known}
    return lacking


def _once(cells: Sequence[Cell]) -> list[Cell]:
    """The first of those that would be the same run."""
    return list({cell.overrides: cell for cell in reversed(cells)}.values())[::-1]


def _axes(words: Sequence[str], suite: Suite) -> dict[str, list[str]]:
    """Setting → its values, in the order of the words."""
    axes: dict[str, list[str]] = {}
    overrides = parsed(words)
    check_sweeps(overrides)
    for override in overrides:
        key, value = override.get_key_element(), override.value()
        if key == suite.choices[0] and value == EVERYTHING:
            axes[key] = list(suite.choices[1])
        elif isinstance(value, Glob):
            axes[key] = matching(key, value)
        elif override.is_sweep_override():
            axes[key] = [str(one) for one in override.sweep_string_iterator()]
        else:
            axes[key] = [override.get_value_element_as_str()]
    return axes


def _listed(settings: dict[str, str]) -> str:
    return ", ".join(f"{k}={v}" for k, v in settings.items()) or "no fixed settings"
