"""Sweepers of Hydra that search by the score of a job, as Optuna's does."""

from contextlib import suppress
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf, read_write

from hypercrl.base.counted import counted
from hypercrl.base.dotted import dotted
from hypercrl.base.errors import UserError
from hypercrl.base.settings import as_given

_FOUND = "optimization_results.yaml"
_ONE_SCORE = "a run has one score, success or the return, of which more is better."
_LEAST = {"minimize": True, "maximize": False}
"""Switches, of sweepers such as Ax's and Nevergrad's, where they have them look for the least."""


def maximise(config: DictConfig) -> None:
    """Have a sweeper look for the largest score, of which more is better.

    Optuna is told so where nothing is said. Of another's switch, which is on or off, nobody can
    tell whether it was given. A sweeper that has no such switch is for who chose it to know.

    Args:
        config: of a multirun, with `hydra`; its direction is changed.

    Raises:
        UserError: it is to be minimised, or there are to be several scores.
    """
    sweeper: Any = config.hydra.sweeper
    switches = dotted(cast(dict[str, Any], OmegaConf.to_container(sweeper, resolve=False)))
    wrong = [key for key, value in switches if value is _LEAST.get(_last(key), ...)]
    if wrong:
        give = " ".join(f"hydra.sweeper.{key}={as_given(not _LEAST[_last(key)])}" for key in wrong)
        raise UserError(f"the sweeper looks for the least score, and {_ONE_SCORE} Give {give}")
    if "direction" not in sweeper:
        return
    given = sweeper.direction
    if isinstance(given, Enum):  # Optuna's default, which is minimize; what is given is a text
        with read_write(config):
            sweeper.direction = "maximize"
        return
    if given != "maximize":
        raise UserError(
            f"hydra.sweeper.direction={given}: {_ONE_SCORE} Leave the direction out, or give "
            "maximize."
        )


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def check_goes_on(config: DictConfig) -> None:
    """Refuse a search whose jobs are there where it cannot come to the same ones again.

    Raises:
        UserError: says where they are, and how to go on.
    """
    folder = OmegaConf.select(config, "run_dir")
    sweeper: Any = config.hydra.sweeper
    if folder is None or not Path(folder).is_dir() or "sampler" not in sweeper:
        return
    there = [p for p in Path(folder).iterdir() if p.name.isdigit() and (p / "config.yaml").exists()]
    if not there:
        return
    said = f"{folder} has {counted(len(there), 'job')} of an earlier sweep, and is left as it is: "
    if OmegaConf.select(sweeper, "storage") and OmegaConf.select(sweeper, "study_name"):
        raise UserError(
            f"{said}what they came to is in the study {sweeper.study_name!r} already, and would "
            "count twice. The study goes on from there with another run_dir."
        )
    if OmegaConf.select(sweeper, "sampler.seed") is None:
        raise UserError(
            f"{said}without hydra.sweeper.sampler.seed=N the trials are others each time, and a "
            "sweep does not go on from them. Give another run_dir, and such a seed."
        )


def check_storage(config: DictConfig) -> None:
    """Raise UserError where Optuna 2 is to keep its study by SQLAlchemy 2, in which it asserts."""
    storage = OmegaConf.select(config, "hydra.sweeper.storage")
    if not isinstance(storage, str) or storage.startswith("redis"):
        return
    with suppress(PackageNotFoundError):
        if version("optuna")[:2] == "2." and version("sqlalchemy")[:2] not in ("0.", "1."):
            raise UserError(
                f"hydra.sweeper.storage={storage}: Optuna {version('optuna')} keeps a study with "
                f"SQLAlchemy 1 only, and {version('sqlalchemy')} is installed: "
                'pip install "sqlalchemy<2" "alembic<1.20", or leave the storage out.'
            )


def tell_best(folder: Path) -> None:
    """Print what a search that has ended has found, and the file that says so."""
    if not (folder / _FOUND).is_file():
        return
    found: Any = OmegaConf.load(folder / _FOUND)
    if "best_params" in found:
        words = " ".join(f"{key}={value}" for key, value in found.best_params.items())
        print(f"best: {words}, score {found.best_value:.4g}: {folder / _FOUND}")
