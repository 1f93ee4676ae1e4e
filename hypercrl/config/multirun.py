"""The jobs of Hydra's multirun, checked before the first one starts."""

from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob

from hypercrl.base.errors import UserError
from hypercrl.config.compose import one_by_one
from hypercrl.config.ignored import check_used
from hypercrl.config.messages import composing

FLAGS = {"-m", "--multirun"}
_FILE = "multirun.yaml"


def check_jobs(command: str, words: Sequence[str]) -> None:
    """Compose every job of a multirun, and so check its settings.

    Jobs of another sweeper than Hydra's own, and of a pattern such as method=*, are not known
    beforehand.

    Args:
        command: of `hypercrl`.
        words: what it is called with; without FLAGS there are no jobs.

    Raises:
        UserError: a setting that does not exist, a value that it does not take, or settings that
            cannot be together; names the job by what tells it from the others.
    """
    if not FLAGS & set(words) or any(word.startswith("hydra/sweeper") for word in words):
        return
    with composing(command):
        given = OverridesParser.create().parse_overrides([w for w in words if "=" in w])
        ours = [o for o in given if not o.key_or_group.startswith("hydra")]
        if any(isinstance(override.value(), Glob) for override in ours):
            return
        (jobs,) = BasicSweeper.split_arguments(ours, None)
    swept = {override.get_key_element() for override in ours if override.is_sweep_override()}
    with one_by_one() as composed:
        for job in jobs:
            try:
                check_used([(composed(command, job), job)])
            except UserError as error:
                told = " ".join(word for word in job if word.partition("=")[0] in swept)
                raise UserError(f"{told}: {error}" if told else str(error)) from error


def take_away_unless_begun(folder: Path) -> None:
    """Remove a multirun's folder if nothing but Hydra's multirun.yaml came into it."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {_FILE}:
        (folder / _FILE).unlink(missing_ok=True)
        folder.rmdir()
