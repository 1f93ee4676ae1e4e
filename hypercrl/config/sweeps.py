"""Several values of a setting, as in a multirun or a grid: refused where there are none."""

from collections.abc import Iterable

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from hypercrl.base.errors import UserError
from hypercrl.config.sources import files

HYDRAS_OWN = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
"""The sweeper that tries every combination, as a grid does."""


def check_sweeps(overrides: Iterable[Override], sweeper: str = HYDRAS_OWN) -> None:
    """Refuse ranges, intervals and patterns with nothing in them, or that a sweeper does not take.

    Args:
        overrides: what was read of KEY=VALUE.
        sweeper: path of its class.

    Raises:
        UserError: names the setting.
    """
    by_optuna = "optuna" in sweeper
    for given in overrides:
        value, said = given.value(), given.input_line
        if isinstance(value, RangeSweep):
            start, stop, step = value.start or 0, value.stop or 0, value.step or 0
            if step == 0:
                raise UserError(f"{said}: a range whose step is 0 does not get anywhere.")
            if by_optuna and not value.shuffle:
                if step < 0 or start > stop:
                    raise UserError(f"{said}: Optuna takes a range from a number to a larger one.")
            elif (stop - start) / step <= 0:
                raise UserError(f"{said}: there is nothing in this range.")
        elif isinstance(value, Glob):
            group = given.key_or_group
            if not (group.startswith("hydra") or matching(group, value)):
                raise UserError(f"{said}: no choice of a group is so called.")
        elif isinstance(value, IntervalSweep):
            start, end = value.start or 0, value.end or 0
            if sweeper == HYDRAS_OWN:
                raise UserError(
                    f"{said}: an interval is for hydra/sweeper=optuna; here give values, such as "
                    "0.1,1, or a range(FROM,TO,STEP)."
                )
            if not start <= end:
                raise UserError(f"{said}: an interval is from a number to a larger one.")
            if "log" in value.tags and start <= 0:
                raise UserError(f"{said}: with tag(log, …) an interval begins above 0.")


def matching(group: str, pattern: Glob) -> list[str]:
    """Choices of a group that fit glob(…), in the order of the alphabet; of a setting none."""
    return pattern.filter(sorted(files(group)))
