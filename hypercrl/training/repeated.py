"""A run that is wanted once more, such as a job of a multirun whose command is given again."""

import os
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from hypercrl.base.dotted import dotted
from hypercrl.base.errors import UserError
from hypercrl.base.settings import as_given
from hypercrl.base.strict_json import from_json
from hypercrl.config.stored import parse_stored
from hypercrl.runs.run_folder import MISFITS, RunFolder
from hypercrl.training.result import score

_FREE = ("run_dir", "device", "trust")
"""Settings that do not make a run another one."""
_SHOWN = 3
"""Settings that a message names at most."""


def is_begun(path: Path) -> bool:
    """Whether a run has begun there: without its configuration there is nothing to go on with."""
    return os.path.isfile(path / "config.yaml")  # of a name that is too long it is none


def check_same(config: DictConfig, path: Path) -> None:
    """Refuse a run of other settings in the place of the one that is wanted.

    What the machine decides, where nothing is given, may be as another machine has decided it.

    Args:
        config: of the run that is wanted.
        path: of the one that `is_begun`.

    Raises:
        UserError: they differ, or the one that is there cannot be read; says in what.
    """
    stored, _ = parse_stored(path / "config.yaml")
    wanted: Any = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(config, resolve=True)))
    there, now = dict(dotted(stored)), dict(dotted(wanted))
    left_to_the_machine = {key for key in ("threads", "planner.precision") if now.get(key) is None}
    keys = (there.keys() | now.keys()) - {*_FREE, *left_to_the_machine}
    differing = [key for key in keys if repr(there.get(key)) != repr(now.get(key))]
    if not differing:
        return
    # Of another method each setting differs: what both have tells more.
    differing.sort(key=lambda key: (key not in there or key not in now, key))
    said = [_said(key, there, now) for key in differing[:_SHOWN]]
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise UserError(
        f"{path} holds a run of other settings, and is left as it is: {', '.join(said)}{more}. "
        "Name another run_dir, or give the settings that it was begun with."
    )


def _said(key: str, there: dict[str, Any], now: dict[str, Any]) -> str:
    name = key.removesuffix(".name")
    before, after = (as_given(one[key]) if key in one else "not given" for one in (there, now))
    return f"{name} is {before} there, {after} here" if len(before + after) < 60 else name


def score_of(folder: RunFolder) -> float:
    """What a run that has ended scored, see `hypercrl.training.result.score`.

    Raises:
        UserError: its result cannot be read.
    """
    try:
        return score(cast(dict[str, Any], from_json(folder.result_path.read_bytes())))
    except MISFITS as error:
        raise UserError(
            f"{folder.result_path} has no score; it was written by another version. Name another "
            "run_dir."
        ) from error
